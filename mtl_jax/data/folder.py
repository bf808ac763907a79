"""The tfds builder `folder_mt/NAME` of a user's own images and labels.

The user's folder holds `dataset.toml` (`mtl_jax.data.description`), the images, a folder for each task, and lists of
ids. An image without a label file of a task is unlabelled for that task: no loss and no metric counts it.
"""

import contextlib
import hashlib
import json
import logging
import os
import stat
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from mtl_jax import tasks as task_table
from mtl_jax.codecs import pictures
from mtl_jax.data import built, description, file_builder, originals, staging
from mtl_jax.data.description import Description
from mtl_jax.data.file_patterns import FilePattern
from mtl_jax.labels import LabelFiles, axes, readers

logger = logging.getLogger(__name__)

_EXAMPLES = 3  # files named in a message


@dataclass(kw_only=True)
class FolderConfig(file_builder.FilesConfig):
    """Configuration of the builder for a folder.

    Attributes:
        root: Path of the folder.
        content: Content of its `dataset.toml`.
    """

    root: Path
    content: Description


class FolderMt(file_builder.FilesBuilder):
    """The tfds builder `folder_mt`, see the module's docstring. `described` makes its configs."""

    name = "folder_mt"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 (as tfds declares it)
    DESCRIPTION = "A folder of images with dense labels."

    @classmethod
    def described(
        cls, name: str, data_dir: Path, manual_dir: str | Path | None, num_workers: int | None
    ) -> tfds.core.DatasetBuilder:
        """Returns the builder of a folder, or of a data set that is built already.

        Args:
            name: Name of the data set. "" means the name in the description.
            data_dir: Folder of the built data sets.
            manual_dir: Folder with `dataset.toml`. None means the data set that is built under this name.
            num_workers: Number of processes that read files, see `workers.map_ordered`.

        Raises:
            ValueError: The description is faulty or has another name, the folder has changed since it was built, or a
                file of the built data set is damaged.
            FileNotFoundError: The folder has no description, or `manual_dir` is None and the data set is not built.
        """
        if manual_dir is None:
            folder = data_dir / cls.name / name / str(cls.VERSION)
            if not folder.is_dir():
                raise FileNotFoundError(
                    f"data set {cls.name}/{name} is not built in {data_dir}; give its folder: "
                    "--data.manual_dir=DIR to `mtl train`, or --dataset DIR to `mtl data build`"
                )
            return built.open_built(folder)
        root = Path(manual_dir).expanduser().resolve()
        content = description.read(root)
        if name not in ("", content.name):
            raise ValueError(f"{root / description.FILE} describes {content.name!r}, expected {name!r}")
        config = FolderConfig(name=content.name, description=cls.DESCRIPTION, root=root, content=content)
        folder = data_dir / cls.name / content.name / str(cls.VERSION)
        with built.checked(folder) if folder.is_dir() else contextlib.nullcontext():
            builder = cls(config=config, data_dir=str(data_dir), num_workers=num_workers)
        if builder.is_prepared():
            builder.check_unchanged()
        return builder

    def source(self) -> str:
        """Returns a hash of the description, and of the names, sizes and times of all files of the ids."""
        return self._hash(*self._files())

    def check_unchanged(self) -> None:
        """Checks that the data set was built from what the folder holds now.

        Raises:
            ValueError: The folder has changed; the message says how. A copy of the folder has not.
        """
        config, metadata, folder = self.builder_config, dict(self.info.metadata), Path(self.data_path)
        ids, states = self._files()
        source = self._hash(ids, states)
        # The hash is that of all ids in a row, so it does not tell which split they belong to. Their numbers do.
        counts = {split: info.num_examples for split, info in self.info.splits.items()}
        same_splits = counts == {split: len(names) for split, names in ids.items()}
        if same_splits and (source == metadata.get("source") or originals.is_accepted(folder, source)):
            return
        changes = _redescribed(metadata.get("description", {}), description.to_dict(config.content))
        if not changes:
            there = filter(None, (state for _, state in states))
            different = originals.differences(folder, config.root, self.lists(), ids, there, self._num_workers)
            if different == []:
                logger.info(
                    "%s has other modification times than when it was built, and the same contents", config.root
                )
                originals.accept(folder, source)
                return
            changes = different or ["a list, name, size or time; the version that built it did not note which"]
        raise ValueError(
            f"{config.root} has changed since it was built in {folder}: {'; '.join(changes)}. Delete {folder} to build "
            "it again, or give the changed data another name"
        )

    def _files(self) -> tuple[dict[str, list[str]], list[tuple[Path, originals.State | None]]]:
        """Returns the ids of each split, and the states of the files that belong to them, None for missing files."""
        root = self.builder_config.root
        ids = self.ids(root, [])
        paths = chain.from_iterable(map(self.candidates(root), chain.from_iterable(ids.values())))
        return ids, [(path, staging.file_state(path, root)) for path in paths]

    def _hash(self, ids: Mapping[str, Sequence[str]], states: Iterable[tuple[Path, originals.State | None]]) -> str:
        described = description.to_dict(self.builder_config.content)
        # A missing file counts in one spelling only, so that the hash is that of data sets built by version 1.
        stats = [state for path, state in states if state or path.suffix == path.suffix.lower()]
        names = list(chain.from_iterable(ids.values()))
        return hashlib.sha256(json.dumps([described, names, stats]).encode()).hexdigest()

    def __init__(self, *, config: Any = None, **kwargs: Any):
        if not isinstance(config, FolderConfig):
            raise ValueError(
                "folder_mt is made from a folder that describes itself: mtl_jax.data.prepare('folder_mt/NAME', "
                "data_dir, manual_dir=FOLDER), or with what is built tfds.builder_from_directory"
            )
        super().__init__(config=config, **kwargs)

    def identity(self) -> list[str]:
        return [*super().identity(), json.dumps(description.to_dict(self.builder_config.content))]

    def lists(self) -> Mapping[str, str]:
        content = self.builder_config.content
        return {split: path or content.images for split, path in content.splits.items()}

    def ids(self, root: Path, problems: list[str]) -> dict[str, list[str]]:
        content = self.builder_config.content
        ids = {}
        for split, path in content.splits.items():
            name = content.split_name(split)
            new: list[str] = []
            listed = file_builder.read_list(root, path, new) if path else _images_there(root, content, name, new)
            ids[split] = [content.key(name, key) for key in listed]
            problems += new
        return ids

    def labels(self) -> Mapping[str, tfds.features.FeatureConnector]:
        found = {task: _feature(task, label) for task, label in self.builder_config.content.labels.items()}
        return {**found, file_builder.LABELLED: tfds.features.Text()}

    def read_record(self, root: Path) -> Callable[[str], readers.Reading]:
        return partial(_read_record, root, self.builder_config.content)

    def candidates(self, root: Path) -> Callable[[str], Sequence[Path]]:
        content = self.builder_config.content
        files = [(each, _spelled(each.suffixes)) for each in (content.image_files, *content.label_files.values())]

        def paths(key: str) -> list[Path]:
            stems = [(each.stem_of(key, content.by_split), suffixes) for each, suffixes in files]
            return [root / f"{stem}{suffix}" for stem, suffixes in stems for suffix in suffixes]

        return paths

    def find(self, dl_manager: tfds.download.DownloadManager) -> Path:
        config = self.builder_config
        content = config.content
        files, names = (content.image_files, *content.label_files.values()), map(content.split_name, content.splits)
        wanted = dict.fromkeys(each.folder(name) for name in names for each in files)
        if lost := [name for name in wanted if not (config.root / name).is_dir()]:
            raise FileNotFoundError(
                f"{config.root} has no folder {', '.join(lost)}; make it, or correct {description.FILE} there"
            )
        return config.root

    def unlisted(self, root: Path, ids: Collection[str]) -> dict[str, list[str]]:
        content, asked = self.builder_config.content, set(ids)
        unlisted: dict[str, list[str]] = {}
        for task, files in content.label_files.items():
            there, belonging = set(), set()
            for split in map(content.split_name, content.splits):
                for key, path in files.files(root, split):
                    there.add(path)
                    if content.key(split, key) in asked:
                        belonging.add(path)
            unlisted[task] = sorted(there - belonging)
            if unlisted[task]:
                logger.warning(
                    "%d label files of %s belong to no image of the lists, for example %s",
                    len(unlisted[task]),
                    task,
                    ", ".join(unlisted[task][:_EXAMPLES]),
                )
        return unlisted

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        for task, label in self.builder_config.content.labels.items():
            if "axes" in task_table.get(task).kind.folder_options and not label.axes:
                logger.warning(
                    "%s does not say the axes of tasks.%s; the transforms take them for opencv (%s)",
                    description.FILE,
                    task,
                    axes.describe("opencv"),
                )
        ids, states = self._files()
        self.info.metadata["source"] = self._hash(ids, states)
        self.info.metadata["description"] = description.to_dict(self.builder_config.content)
        generators = super()._split_generators(dl_manager)
        there = filter(None, (state for _, state in states))
        originals.write(Path(self.data_path), self.builder_config.root, ids, there, self._num_workers)
        return generators


def _read_record(root: Path, content: Description, key: str) -> readers.Reading:
    problems: list[str] = []
    record: dict[str, Any] = {"id": key}
    present = _find(root, content.image_files, key, content.by_split, problems)
    image = None
    if present:
        image = readers.read(root, present, readers.photograph(content.orientation), problems)
    elif not problems:
        files = content.image_files
        others = f" (or {', '.join(files.suffixes[1:])})" if files.suffixes[1:] else ""
        problems.append(f"{files.stem_of(key, content.by_split)}{files.suffixes[0]}{others} is missing")
    size = image[1] if image else (1, 1)
    record["image"] = image[0] if image else b""
    labelled = []
    for task, label in content.labels.items():
        kind = task_table.get(task).kind
        record[task] = kind.unlabelled(label, size)
        if label.derived_from:
            continue
        name = _find(root, content.label_files[task], key, content.by_split, problems)
        if name and (read := readers.read(root, name, kind.reader(label), problems)):
            record[task] = read[0]
            labelled.append(task)
            if image:
                readers.check_size(name, read[1], size, f"the image {present} is", problems)
    for task, label in content.labels.items():
        if label.derived_from in labelled and not problems:
            kind = task_table.get(task).kind
            record[task] = kind.derived(pictures.decode(record[label.derived_from], 1))
            labelled.append(task)
    if not labelled and not problems:
        problems.append(f"id {key!r} has no label of any task; take it from the lists or add one")
    record[file_builder.LABELLED] = " ".join(labelled)
    return record, problems


def _redescribed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns which entries differ between two results of `description.to_dict`, the first one read from JSON."""
    tables = [
        {**{key: value for key, value in table.items() if key != "labels"}, **table.get("labels", {})}
        for table in (before, json.loads(json.dumps(now)))
    ]
    changed = [key for key in {**tables[0], **tables[1]} if tables[0].get(key) != tables[1].get(key)]
    return [f"{description.FILE} differs in {', '.join(changed)}"] if changed else []


def _spelled(suffixes: Iterable[str]) -> list[str]:
    """Returns the suffixes in small letters, in capitals and with one capital."""
    return [
        spelled for suffix in suffixes for spelled in (suffix, suffix.upper(), f".{suffix.removeprefix('.').title()}")
    ]


def _images_there(root: Path, content: Description, split: str, problems: list[str]) -> list[str]:
    """Returns the ids of all images of a split that are there, in order; label files beside them are no images."""
    images = {path: key for key, path in content.image_files.files(root, split)}
    # With images = "{id}.png" and labels = "{id}_mask.png" a mask looks like an image, but it is the label of another.
    keys = set(images.values())
    beside = {path for files in content.label_files.values() for key, path in files.files(root, split) if key in keys}
    if not images.keys() - beside:
        stem = content.image_files.stem.replace("{split}", split)
        problems.append(f"no file {stem} with the suffix {' or '.join(content.image_files.suffixes)} is there")
    return sorted(key for path, key in images.items() if path not in beside)


def _find(root: Path, files: FilePattern, key: str, by_split: bool, problems: list[str]) -> str:
    """Returns the path below `root` of the file of an image, "" if there is none.

    Several such files, and a link that leads nowhere, are problems.
    """
    found: dict[tuple[int, int], str] = {}  # by the file itself: where case does not count, spellings name one file
    for suffix in _spelled(files.suffixes):
        name = f"{files.stem_of(key, by_split)}{suffix}"
        try:
            status = (root / name).stat()
        except OSError:
            if (root / name).is_symlink():
                problems.append(f"{name} is a link to {os.readlink(root / name)}, which does not exist")
            continue
        if stat.S_ISREG(status.st_mode):
            found.setdefault((status.st_dev, status.st_ino), name)
    if len(found) > 1:
        problems.append(f"{' and '.join(found.values())} are all there; leave one")
    return next(iter(found.values())) if len(found) == 1 else ""


def _feature(task: str, label: LabelFiles) -> tfds.features.FeatureConnector:
    """Returns how tfds stores the labels of a task."""
    kind = task_table.get(task).kind
    features: dict[str, Callable[[], tfds.features.FeatureConnector]] = {
        "png": file_builder.png_feature,
        "colours": lambda: tfds.features.Image(shape=(None, None, 3)),
        "float32": lambda: file_builder.float_feature(kind.channels),
    }
    return features[kind.stored_form(label)]()
