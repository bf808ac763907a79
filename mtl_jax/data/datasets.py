"""Building of data sets, and access to the splits of built data sets."""

import contextlib
import importlib
import inspect
import io
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from filelock import FileLock

from mtl_jax import tasks as task_table
from mtl_jax.data import built, catalogue
from mtl_jax.data.file_builder import LABELLED
from mtl_jax.data.split import Split
from mtl_jax.runtime import messages


def make_builder(
    builder_name: str, data_dir: str | Path, manual_dir: str | Path | None = None, num_workers: int | None = None
) -> tfds.core.DatasetBuilder:
    """Returns the tfds builder `name` or `name/config`, prepared or not.

    Args:
        builder_name: Name of the builder, for example "nyud_mt/astmt".
        data_dir: Folder of the prepared data sets.
        manual_dir: Folder of a data set with `dataset.toml`. Other data sets do not use it.
        num_workers: Number of processes that read original files, see `workers.map_ordered`.

    Raises:
        ValueError: The builder or the config is unknown (the message lists the known ones), `dataset.toml` is faulty,
            the name of the data folder does not work, or a file of the built data set is damaged.
        FileNotFoundError: For a data set with `dataset.toml`, neither the folder nor the built data exists.
    """
    name, _, config = builder_name.partition("/")
    if config in (".", "..") or set("/\\\0") & set(config):
        raise ValueError(
            f"the builder is {builder_name!r}; after the first / it has the name of one data set, without / or \\, "
            "because the data folder holds a folder of that name: correct data.builder"
        )
    importlib.import_module(catalogue.BUILDERS[name])
    builder_cls = tfds.builder_cls(name)
    data_dir = Path(data_dir).expanduser()
    _check_name(data_dir)
    if (described := getattr(builder_cls, "described", None)) is not None:
        return described(config, data_dir, manual_dir, num_workers)
    configs = tuple(builder_cls.builder_configs)
    if config and config not in configs:
        raise ValueError(
            f"builder {name!r} has no config {config!r}; there are "
            f"{', '.join(f'{name}/{known}' for known in configs) or 'none'}"
        )
    options: dict[str, Any] = {"data_dir": str(data_dir), "file_format": tfds.core.FileFormat.ARRAY_RECORD}
    if "num_workers" in inspect.signature(builder_cls.__init__).parameters:
        options["num_workers"] = num_workers
    if (folder := _folder(builder_cls, config, data_dir)).is_dir():
        with built.checked(folder):
            return tfds.builder(builder_name, **options)
    return tfds.builder(builder_name, **options)


def _folder(builder_cls: type[tfds.core.DatasetBuilder], config: str, data_dir: Path) -> Path:
    """Returns the folder that a data set is built in."""
    chosen = builder_cls.builder_configs[config] if config else builder_cls.default_builder_config
    version = (chosen and chosen.version) or builder_cls.VERSION
    return data_dir.joinpath(builder_cls.name, *((chosen.name,) if chosen else ()), str(version))


def prepare(
    builder_name: str, data_dir: str | Path, manual_dir: str | Path | None = None, num_workers: int | None = None
) -> tfds.core.DatasetBuilder:
    """Returns a prepared builder. The data set is built first if `data_dir` does not hold it.

    If several processes ask for the same data set, one builds it and the others wait.

    Args:
        builder_name: Name of the builder, for example "nyud_mt/astmt" or "rendered_scenes/nyud_tiny".
        data_dir: Folder of the prepared data sets and of downloads. It is created if only its parent exists.
        manual_dir: Folder with files obtained by hand. It is only used while building.
        num_workers: Number of processes that read original files, see `workers.map_ordered`.

    Raises:
        ValueError: The builder or the config is unknown, source files are faulty, or a file of the built data set is
            damaged.
        FileNotFoundError: The parent of `data_dir` or the folder `manual_dir` does not exist, or `manual_dir` does not
            hold the files.
        OSError: A download failed, or the data set cannot be written; the message says what to do.
    """
    data_dir = check_data_dir(data_dir)
    options = (data_dir, manual_dir, num_workers)
    builder = make_builder(builder_name, *options)
    if builder.is_prepared():
        return builder
    # The lock has the full name of the data set, because a data set has several names: "pascal_mt" is
    # "pascal_mt/context".
    lock = data_dir / f".{_full_name(builder).replace('/', '-')}.lock"
    data_dir.mkdir(exist_ok=True)
    with FileLock(lock):
        builder = make_builder(builder_name, *options)  # another process may have built it meanwhile
        if not builder.is_prepared():
            for abandoned in Path(builder.data_path).parent.glob("incomplete.*"):  # from a killed build
                shutil.rmtree(abandoned, ignore_errors=True)
            manual = str(Path(manual_dir).expanduser()) if manual_dir is not None else None
            config = tfds.download.DownloadConfig(manual_dir=manual, try_download_gcs=False)
            with messages.writing(f"the data set {_full_name(builder)}", data_dir), _quiet():
                builder.download_and_prepare(download_config=config)
            built.note_checksums(Path(builder.data_path))
    return builder


def check_data_dir(data_dir: str | Path) -> Path:
    """Returns the path of the folder of the prepared data sets, after a check that takes no time.

    Raises:
        ValueError: The name of the folder does not work.
        FileNotFoundError: The folder cannot be made, because its parent does not exist.
    """
    data_dir = Path(data_dir).expanduser()
    _check_name(data_dir)
    if not data_dir.parent.is_dir():
        raise FileNotFoundError(f"the data folder {data_dir} cannot be made, as {data_dir.parent} does not exist")
    return data_dir


def _check_name(data_dir: Path) -> None:
    if wrong := sorted(set("[]*?") & set(str(data_dir.absolute()))):
        raise ValueError(
            f"the path of the data folder {data_dir} has {' and '.join(wrong)} in it, which TensorFlow Datasets takes "
            "for a pattern of names; give another data_dir"
        )


def open_split(
    builder: tfds.core.DatasetBuilder,
    split: str,
    tasks: Iterable[str] | None = None,
    *,
    only_labelled: bool = False,
    also: Iterable[str] = (),
) -> Split:
    """Returns the records of a split of a prepared data set.

    Args:
        builder: Builder from `prepare`.
        split: "train" or "val".
        tasks: Names of the labels to read. None means all labels.
        only_labelled: True to leave out images that have none of these labels, for example images without people if
            the only task is human_parts.
        also: Names of labels that are read, too, if the data set has them, and that decide nothing else.

    Raises:
        FileNotFoundError: The data set is not built, or some of its files are missing.
        ValueError: The split does not exist, the data set has no labels of a task, no image is left, or a file of the
            data set is damaged.
    """
    name, folder = _full_name(builder), Path(builder.data_path)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"data set {name} is not built in {builder.data_path}; build it with "
            f"mtl_jax.data.prepare({name!r}, data_dir)"
        )
    with built.checked(folder):
        files = {stored: info.filepaths for stored, info in builder.info.splits.items()}
    if split not in files:
        raise ValueError(f"data set {name} has no split {split!r}; it has {', '.join(files)}")
    if lost := [path.name for path in files[split] if not path.exists()]:
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
    seen = tuple(task for task in also if task in have)
    return Split(name, split, str(builder.data_path), positions, wanted, LABELLED in have, also=seen)


def count_labelled(builder: tfds.core.DatasetBuilder, split: str, tasks: Iterable[str]) -> dict[str, int]:
    """Returns {task: number of images with its label} of a split of a prepared data set."""
    return {task: len(positions) for task, positions in labelled_positions(builder, split, tasks).items()}


def labelled_positions(builder: tfds.core.DatasetBuilder, split: str, tasks: Iterable[str]) -> dict[str, Sequence[int]]:
    """Returns {task: positions of the images with its label} of a split of a prepared data set."""
    partly, everything = labelled(builder), range(builder.info.splits[split].num_examples)
    return {task: partly[task][split] if task in partly else everything for task in tasks}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses the output of tfds and its progress bars, because the builders of this library show their own."""
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()


def _full_name(builder: tfds.core.DatasetBuilder) -> str:
    return "/".join(filter(None, (builder.name, builder.builder_config and builder.builder_config.name)))


def labelled(builder: tfds.core.DatasetBuilder) -> Mapping[str, Mapping[str, Sequence[int]]]:
    """Returns {task: {split: positions of the images with its label}} for tasks without a label in some images."""
    return dict(builder.info.metadata or {}).get(LABELLED, {})
