"""The data sets by name: tasks, classes, resolution, releases and rules of evaluation of each.

`register` adds a data set from outside of the package, `register_builder` the TFDS builder that makes it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mtl_jax import tasks as task_table
from mtl_jax.labels import Conventions
from mtl_jax.protocol import PROTOCOLS, EdgeRule
from mtl_jax.registry import Registry

_EDGE = "edge"  # the task whose boundaries are matched


@dataclass(frozen=True)
class Dataset:
    """A family of data sets with one label convention.

    Attributes:
        name: Key in `DATASETS`.
        tasks: Tasks that have labels; empty where the data set says itself which it has, as a folder of one's own does.
        class_names: {task: names of its classes} for the tasks whose labels are class ids.
        image_size: Height and width of network inputs in pixels, for training and validation.
        builders: {release: TFDS name}.
        recipes: {release: name in `mtl_jax.data.RECIPES`}, the release's own augmentation.
        conventions: How the labels are stored, and what the published code does with them.
        edge_rules: {evaluation protocol: rules for edges}.
        described: The folder with the original files says itself what it holds, see `mtl_jax.data.description`. Then
            tasks, classes, image size and builder come from there.
    """

    name: str
    tasks: tuple[str, ...] = ()
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    image_size: tuple[int, int] = (0, 0)
    builders: Mapping[str, str] = field(default_factory=dict)
    recipes: Mapping[str, str] = field(default_factory=dict)
    conventions: Conventions = field(default_factory=Conventions)
    edge_rules: Mapping[str, EdgeRule] = field(default_factory=dict)
    described: bool = False

    def has(self, task: str) -> bool:
        """Returns True if the data set may have labels of a task."""
        return self.described or task in self.tasks

    def builder(self, release: str) -> str:
        """Returns the TFDS name of a release.

        Raises:
            ValueError: The data set has no such release.
        """
        return self.builders[self._checked(release)]

    def recipe(self, release: str) -> str:
        """Returns the name of the augmentation of a release.

        Raises:
            ValueError: The data set has no such release.
        """
        return self.recipes[self._checked(release)]

    def _checked(self, release: str) -> str:
        if release not in self.recipes:
            raise ValueError(
                f"data set {self.name!r} has no release {release!r}; the releases are {', '.join(self.recipes)}"
            )
        return release

    def edge_rule(self, protocol: str) -> EdgeRule:
        """Returns the rules by which edges are scored under an evaluation protocol.

        Raises:
            ValueError: Neither the row of the data set nor the protocol has such rules.
        """
        rule = self.edge_rules.get(protocol) or PROTOCOLS[protocol].edges
        if rule is None:
            raise ValueError(
                f"data set {self.name!r} has no rules for edges under the protocol {protocol!r}; it has rules for "
                f"{', '.join(self.edge_rules) or 'none'}. Give its row edge_rules={{{protocol!r}: EdgeRule(...)}}"
            )
        return rule

    def describe_edges(self, protocol: str) -> str:
        """Returns the rules for edges as text, "none" for a data set without edges."""
        return str(self.edge_rule(protocol)) if self.has(_EDGE) else "none"

    def num_logits(
        self, names: Iterable[str], class_names: Mapping[str, tuple[str, ...]] | None = None
    ) -> dict[str, int]:
        """Returns {task: logit channels}.

        Args:
            names: Names of the tasks.
            class_names: {task: names of its classes} of a data set that says so itself.

        Raises:
            ValueError: The data set has no labels for one of the tasks, or its number of classes is not known.
        """
        names = tuple(names)
        if wrong := [name for name in names if not self.has(task_table.get(name).name)]:
            raise ValueError(
                f"data set {self.name!r} has no task {', '.join(wrong)}; it has: {', '.join(self.tasks) or 'none'}"
            )
        classes = {**self.class_names, **(class_names or {})}
        numbers = {name: task_table.get(name).kind.num_logits(len(classes.get(name, ()))) for name in names}
        if unknown := [name for name, number in numbers.items() if number < 1]:
            raise ValueError(f"the number of classes of {', '.join(unknown)} is not known; describe the data set")
        return numbers


DATASETS: Registry[Dataset] = Registry("data set", "data sets", "mtl_jax.data.register")
# {name of a TFDS builder: module that registers it with TFDS}
BUILDERS: Registry[str] = Registry("builder", "builders", "mtl_jax.data.register_builder")
# {family: conventions}, one for each data set, and those of builders that have their own
FAMILIES: Registry[Conventions] = Registry("family of data sets", "families", "mtl_jax.data.register")


def register(dataset: Dataset) -> Dataset:
    """Adds a data set to the table.

    Raises:
        ValueError: Another data set has this name, or one of its tasks is unknown.
    """
    for task in dataset.tasks:
        task_table.get(task)
    DATASETS.register(dataset.name, dataset)
    FAMILIES[dataset.name] = dataset.conventions
    return dataset


def register_builder(name: str, module: str, conventions: Conventions | None = None) -> None:
    """Adds a TFDS builder.

    Args:
        name: Name of the builder, without its config.
        module: Module whose import registers the builder with TFDS, for example `__name__`.
        conventions: How the builder stores labels, where that is not how the data set does it in whose place the
            builder is used.

    Raises:
        ValueError: Another module registers a builder of this name.
    """
    BUILDERS.register(name, module)
    if conventions is not None:
        FAMILIES[name] = conventions


def conventions(dataset: str, builder: str) -> Conventions:
    """Returns the label conventions of a data set that a builder serves.

    Args:
        dataset: Name of the data set.
        builder: TFDS name of the builder, for example "nyud_mt/astmt".
    """
    own = builder.partition("/")[0]
    return FAMILIES[own if own in FAMILIES else dataset]


def get(name: str) -> Dataset:
    """Returns the row of a data set.

    Raises:
        ValueError: There is no such data set; the message lists those there are.
    """
    return DATASETS[name]


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


_NYUD_CLASSES = _names(
    "wall, floor, cabinet, bed, chair, sofa, table, door, window, bookshelf, picture, counter, blinds, desk, "
    "shelves, curtain, dresser, pillow, mirror, floor mat, clothes, ceiling, books, refrigerator, television, "
    "paper, towel, shower curtain, box, whiteboard, person, night stand, toilet, sink, lamp, bathtub, bag, "
    "other structure, other furniture, other prop"
)
_PASCAL_CLASSES = _names(
    "background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, dining table, dog, horse, "
    "motorbike, person, potted plant, sheep, sofa, train, tv monitor"
)
_PASCAL_PARTS = _names("background, head, torso, upper arm, lower arm, upper leg, lower leg")

register(
    Dataset(
        name="nyud",
        tasks=("semseg", "normals", "edge", "depth"),
        class_names={"semseg": _NYUD_CLASSES},
        image_size=(480, 640),
        conventions=Conventions(interpolates_holes=True, border="zero"),
        builders={"astmt": "nyud_mt/astmt", "survey": "nyud_mt/survey"},
        recipes={"astmt": "astmt", "survey": "survey"},
        edge_rules=dict.fromkeys(("survey", "astmt", "invpt"), EdgeRule("nms", 0.011)),
    )
)
register(
    Dataset(
        name="pascal",
        tasks=("semseg", "human_parts", "sal", "normals", "edge"),
        class_names={"semseg": _PASCAL_CLASSES, "human_parts": _PASCAL_PARTS},
        image_size=(512, 512),
        builders={"astmt": "pascal_mt/context", "survey": "pascal_mt/context"},
        recipes={"astmt": "astmt", "survey": "astmt"},
        conventions=Conventions(
            resize_labels=True,
            normals_dtype="float64",
            normals_void=True,
            empty_is_unlabelled=("human_parts",),
            interpolates_holes=True,
            border="zero",
        ),
        edge_rules={
            "survey": EdgeRule("plain", images="pascal_context"),
            "astmt": EdgeRule("nms"),
            "invpt": EdgeRule("nms", images="pascal_context"),
        },
    )
)
register(
    Dataset(
        name="folder",
        recipes={"astmt": "astmt", "survey": "survey"},
        conventions=Conventions(normals_void=True),
        edge_rules=dict.fromkeys(("survey", "astmt", "invpt"), EdgeRule("nms")),
        described=True,
    )
)

register_builder("nyud_mt", "mtl_jax.data.nyud")
register_builder("pascal_mt", "mtl_jax.data.pascal")
register_builder("folder_mt", "mtl_jax.data.folder")
register_builder("rendered_scenes", "mtl_jax.data.rendered.builder", Conventions(axes="z-up"))
