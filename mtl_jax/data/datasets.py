"""The data sets by name, and opening prepared ones."""

import contextlib
import importlib
import io
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tensorflow_datasets as tfds
from filelock import FileLock

from mtl_jax import tasks as task_table
from mtl_jax.data import transforms
from mtl_jax.data.file_builder import LABELLED
from mtl_jax.data.split import Split


@dataclass(frozen=True)
class Dataset:
    """A family of data sets with one label convention.

    Attributes:
        name: key in `DATASETS`, in `Task.channels` and in `records.CONVENTIONS`.
        image_size: height and width, training and validation.
        builders: {release: TFDS name}.
        recipes: {release: key of `transforms.RECIPES`}.
        described: the folder with the original files says itself what it holds, see `mtl_jax.data.description`:
            then there is neither an image size nor a builder here.
    """

    name: str
    image_size: tuple[int, int]
    builders: Mapping[str, str]
    recipes: Mapping[str, str]
    described: bool = False

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks with labels, in the order of the task table."""
        return tuple(task.name for task in task_table.TASKS.values() if self.name in task.channels)

    def builder(self, release: str) -> str:
        """Returns the TFDS name of a release.

        Raises:
            ValueError: The data set has no such release.
        """
        return self.builders[self._checked(release)]

    def recipe(self, release: str) -> transforms.Recipe:
        """Returns the augmentation of a release.

        Raises:
            ValueError: The data set has no such release.
        """
        return transforms.RECIPES[self.recipes[self._checked(release)]]

    def _checked(self, release: str) -> str:
        if release not in self.recipes:
            raise ValueError(
                f"data set {self.name!r} has no release {release!r}; the releases are {', '.join(self.recipes)}"
            )
        return release


_ROWS = (
    Dataset(
        name="nyud",
        image_size=(480, 640),
        builders={"astmt": "nyud_mt/astmt", "survey": "nyud_mt/survey"},
        recipes={"astmt": "astmt", "survey": "survey"},
    ),
    Dataset(
        name="pascal",
        image_size=(512, 512),
        builders={"astmt": "pascal_mt/context", "survey": "pascal_mt/context"},
        recipes={"astmt": "astmt", "survey": "astmt"},
    ),
    Dataset(
        name="folder",
        image_size=(0, 0),
        builders={},
        recipes={"astmt": "astmt", "survey": "survey"},
        described=True,
    ),
)

DATASETS: dict[str, Dataset] = {dataset.name: dataset for dataset in _ROWS}

# Builders: the module that registers each with tfds.
BUILDERS: dict[str, str] = {
    "nyud_mt": "mtl_jax.data.nyud",
    "pascal_mt": "mtl_jax.data.pascal",
    "folder_mt": "mtl_jax.data.folder",
    "rendered_scenes": "mtl_jax.data.rendered.builder",
}


def get(name: str) -> Dataset:
    """The row of a data set.

    Raises:
        ValueError: no such data set; the message lists those there are.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; the data sets are {', '.join(DATASETS)}")
    return DATASETS[name]


def make_builder(
    builder_name: str, data_dir: str | Path, manual_dir: str | Path | None = None, num_workers: int | None = None
) -> tfds.core.DatasetBuilder:
    """The tfds builder `name` or `name/config`, prepared or not.

    Args:
        builder_name: for example "nyud_mt/astmt".
        data_dir: holds prepared data sets.
        manual_dir: only of use to a data set that is described in its folder.
        num_workers: processes that read original files, see `workers.map_ordered`.

    Raises:
        ValueError: no such builder or config; the message lists those there are. Or a faulty description.
        FileNotFoundError: a data set that is described in its folder, with neither the folder nor the built data.
    """
    name, _, config = builder_name.partition("/")
    if name not in BUILDERS:
        raise ValueError(f"unknown builder {builder_name!r}; the builders are {', '.join(BUILDERS)}")
    importlib.import_module(BUILDERS[name])
    builder_cls = tfds.builder_cls(name)
    data_dir = Path(data_dir).expanduser()
    if (described := getattr(builder_cls, "described", None)) is not None:
        return described(config, data_dir, manual_dir, num_workers)
    configs = tuple(builder_cls.builder_configs)
    if config and config not in configs:
        raise ValueError(
            f"builder {name!r} has no config {config!r}; there are "
            f"{', '.join(f'{name}/{known}' for known in configs) or 'none'}"
        )
    return tfds.builder(builder_name, data_dir=str(data_dir), num_workers=num_workers)


def prepare(
    builder_name: str, data_dir: str | Path, manual_dir: str | Path | None = None, num_workers: int | None = None
) -> tfds.core.DatasetBuilder:
    """A builder whose data is in `data_dir`, building it where it is not.

    Processes that want the same data set at once wait for the first to build it.

    Args:
        builder_name: for example "nyud_mt/astmt" or "rendered_scenes/nyud_tiny".
        data_dir: holds prepared data sets and downloads; must exist unless its parent does.
        manual_dir: folder with files obtained by hand; only used while building.
        num_workers: processes that read original files, see `workers.map_ordered`.

    Raises:
        ValueError: no such builder or config, or faulty source files.
        FileNotFoundError: the folder above `data_dir`, or `manual_dir`, does not exist or does not hold the files.
        OSError: a download failed.
    """
    data_dir = Path(data_dir).expanduser()
    if not data_dir.parent.is_dir():
        raise FileNotFoundError(f"the data folder {data_dir} cannot be made, as {data_dir.parent} does not exist")
    options = (data_dir, manual_dir, num_workers)
    builder = make_builder(builder_name, *options)
    if builder.is_prepared():
        return builder
    # Named after the data set, not after one of the ways to spell it: "pascal_mt" is "pascal_mt/context".
    lock = data_dir / f".{_full_name(builder).replace('/', '-')}.lock"
    data_dir.mkdir(exist_ok=True)
    with FileLock(lock):
        builder = make_builder(builder_name, *options)  # by now another process may have built it
        if not builder.is_prepared():
            for abandoned in Path(builder.data_path).parent.glob("incomplete.*"):  # by a build that was killed
                shutil.rmtree(abandoned, ignore_errors=True)
            manual = str(Path(manual_dir).expanduser()) if manual_dir is not None else None
            config = tfds.download.DownloadConfig(manual_dir=manual, try_download_gcs=False)
            with _quiet():
                builder.download_and_prepare(download_config=config)
    return builder


def open_split(
    builder: tfds.core.DatasetBuilder, split: str, tasks: Iterable[str] | None = None, *, only_labelled: bool = False
) -> Split:
    """The records of a split of a prepared data set.

    Args:
        builder: from `prepare`.
        split: "train" or "val".
        tasks: labels to read; None reads all.
        only_labelled: leave out the images that have none of these labels, for example those without a person where
            `tasks` is human_parts.

    Raises:
        FileNotFoundError: the data set is not built, or some of its files are gone.
        ValueError: no such split, no labels for one of the tasks, or no image left.
    """
    name = _full_name(builder)
    if not builder.is_prepared():
        raise FileNotFoundError(
            f"data set {name} is not built in {builder.data_path}; build it with "
            f"mtl_jax.data.prepare({name!r}, data_dir)"
        )
    if split not in builder.info.splits:
        raise ValueError(f"data set {name} has no split {split!r}; it has {', '.join(builder.info.splits)}")
    if lost := [path.name for path in builder.info.splits[split].filepaths if not path.exists()]:
        raise FileNotFoundError(
            f"data set {name} in {builder.data_path} has lost {', '.join(lost)}; delete that folder and build it again"
        )
    have = tuple(builder.info.features)
    wanted = tuple(tasks) if tasks is not None else tuple(task for task in task_table.TASKS if task in have)
    if missing := [task for task in wanted if task not in have]:
        raise ValueError(
            f"data set {name} has no labels for {', '.join(missing)}; it has "
            f"{', '.join(task for task in task_table.TASKS if task in have)}: change the tasks"
        )
    positions: Sequence[int] = range(builder.info.splits[split].num_examples)
    partly = labelled(builder)
    if only_labelled and wanted and all(task in partly for task in wanted):
        positions = sorted(set().union(*(partly[task][split] for task in wanted)))
        if not positions:
            raise ValueError(f"data set {name} has no image with labels for {', '.join(wanted)} in split {split!r}")
    return Split(name, split, str(builder.data_path), positions, wanted, LABELLED in builder.info.features)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what tfds prints, and its bars without a total: our builders show their own."""
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()


def _full_name(builder: tfds.core.DatasetBuilder) -> str:
    return "/".join(filter(None, (builder.name, builder.builder_config and builder.builder_config.name)))


def labelled(builder: tfds.core.DatasetBuilder) -> Mapping[str, Mapping[str, Sequence[int]]]:
    """{task: {split: positions of the images with its label}}, for the tasks that not every image has a label of."""
    return dict(builder.info.metadata or {}).get(LABELLED, {})
