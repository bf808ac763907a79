"""The tasks: everything that differs from one task to the next stands in its row, or in the kind of its labels.

`register` adds a task from outside of the package.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mtl_jax.labels import IGNORE, ClassIds, Foreground, LabelKind, RealValues, UnitVectors
from mtl_jax.registry import Registry

__all__ = ["FROM_DATA", "IGNORE", "TASKS", "Criterion", "Task", "get", "num_channels", "ordered", "register"]

FROM_DATA = 0  # in `Task.channels`: the data set says itself how many classes it has


@dataclass(frozen=True)
class Criterion:
    """The entry of a task's results that decides which of two models is better, and its direction."""

    name: str
    higher_is_better: bool

    @property
    def sign(self) -> int:
        """+1 if higher is better, else -1."""
        return 1 if self.higher_is_better else -1


@dataclass(frozen=True)
class Task:
    """One dense prediction task.

    Attributes:
        name: Key of the task in batches, outputs, configurations and results.
        kind: Meaning of the values of labels and predictions: how they are decoded, moved, drawn and stored.
        channels: Number of logit channels for each data set's label convention, or `FROM_DATA`.
        loss: Name of the loss in `mtl_jax.losses.LOSSES`.
        loss_weight: Weight of the loss in the training objective (arXiv 2004.13379, grid-searched by its authors).
        metric: Name of the metric in `mtl_jax.metrics.METRICS`.
        criterion: Score that ranks models and enters the multi-task performance.
        streaming_criterion: The same while training, where that is another score.
    """

    name: str
    kind: LabelKind
    channels: Mapping[str, int]
    loss: str
    loss_weight: float
    metric: str
    criterion: Criterion
    streaming_criterion: Criterion | None = None


TASKS: Registry[Task] = Registry("task", "tasks", "mtl_jax.tasks.register")


def register(task: Task) -> Task:
    """Adds a task to the table, after those that are there.

    Raises:
        ValueError: Another task has this name.
    """
    return TASKS.register(task.name, task)


def get(name: str) -> Task:
    """Returns the row of a task.

    Raises:
        ValueError: There is no such task; the message lists those there are.
    """
    return TASKS[name]


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Returns the tasks without repetition in the order of the table, which is the order used in every model.

    Raises:
        ValueError: A name is not a task.
    """
    wanted = {get(name).name for name in names}
    return tuple(name for name in TASKS if name in wanted)


def num_channels(names: Iterable[str], dataset: str, classes: Mapping[str, int] | None = None) -> dict[str, int]:
    """{task: logit channels} under a data set's label convention.

    Args:
        names: Names of the tasks.
        dataset: Key of `Task.channels`.
        classes: {task: number of classes} of a data set that says so itself.

    Raises:
        ValueError: The data set has no labels for one of the tasks, or does not say how many classes it has.
    """
    names = tuple(names)
    if wrong := [name for name in names if dataset not in get(name).channels]:
        known = [task.name for task in TASKS.values() if dataset in task.channels]
        raise ValueError(f"data set {dataset!r} has no task {', '.join(wrong)}; it has: {', '.join(known) or 'none'}")
    channels = {name: get(name).channels[dataset] for name in names}
    channels |= {name: (classes or {}).get(name, 0) for name, n in channels.items() if n == FROM_DATA}
    if unknown := [name for name, n in channels.items() if n < 1]:
        raise ValueError(f"the number of classes of {', '.join(unknown)} is not known; describe the data set")
    return channels


register(
    Task(
        name="semseg",
        kind=ClassIds(),
        channels={"nyud": 40, "pascal": 21, "folder": FROM_DATA},
        loss="softmax_cross_entropy",
        loss_weight=1.0,
        metric="semseg",
        criterion=Criterion("mIoU", higher_is_better=True),
    )
)
register(
    Task(
        name="human_parts",
        kind=ClassIds(empty_is_unlabelled=True, palette="parts"),
        channels={"pascal": 7, "folder": FROM_DATA},
        loss="softmax_cross_entropy",
        loss_weight=2.0,
        metric="human_parts",
        criterion=Criterion("mIoU", higher_is_better=True),
    )
)
register(
    Task(
        name="sal",
        kind=Foreground(),
        channels={"pascal": 1, "folder": 1},
        loss="balanced_cross_entropy",
        loss_weight=5.0,
        metric="saliency",
        criterion=Criterion("mIoU", higher_is_better=True),
    )
)
register(
    Task(
        name="normals",
        kind=UnitVectors(),
        channels={"pascal": 3, "nyud": 3, "folder": 3},
        loss="normals_l1",
        loss_weight=10.0,
        metric="normals",
        criterion=Criterion("mean", higher_is_better=False),
    )
)
register(
    Task(
        name="edge",
        kind=Foreground(binary=False, lines=True),
        channels={"pascal": 1, "nyud": 1, "folder": 1},
        loss="edge_cross_entropy",
        loss_weight=50.0,
        metric="edge",
        criterion=Criterion("odsF", higher_is_better=True),
        streaming_criterion=Criterion("loss", higher_is_better=False),  # matching boundaries takes too long
    )
)
register(
    Task(
        name="depth",
        kind=RealValues(
            unit="m",
            zero_is_unlabelled=True,
            distance=True,
            low=0.0,
            high=254.0,
            step=0.001,
            legend="from near (dark) to far (bright), every map over its own range",
        ),
        channels={"nyud": 1, "folder": 1},
        loss="depth_l1",
        loss_weight=1.0,
        metric="depth",
        criterion=Criterion("rmse", higher_is_better=False),
    )
)
