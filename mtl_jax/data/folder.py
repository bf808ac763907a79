"""A user's own images and labels as a tfds builder: `folder_mt/NAME`, made from the folder that describes itself.

The folder holds `dataset.toml` (`mtl_jax.data.description`), the images, one folder for each task, and lists of ids.
A label that is not there leaves its image unlabelled for that task: no loss and no metric counts it.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mtl_jax import tasks as task_table
from mtl_jax.codecs import pictures
from mtl_jax.data import description, file_builder, label_files, staging
from mtl_jax.data.description import Description, Label

IMAGES = (".jpg", ".jpeg", ".png")
_DEEPEST = 254.0  # metres; 255 is the ignored value
_NO_VECTOR = (0.5, 1.5)  # coded normals of a length outside are no unit vectors: pixels without a label


@dataclass(kw_only=True)
class FolderConfig(file_builder.FilesConfig):
    """A described folder.

    Attributes:
        root: the folder.
        content: what it says about itself.
    """

    root: Path
    content: Description


class FolderMt(file_builder.FilesBuilder):
    """tfds builder `folder_mt`, see the module's docstring; its configs are made by `described`."""

    name = "folder_mt"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 (as tfds declares it)
    DESCRIPTION = "A folder of images with dense labels."

    @classmethod
    def described(
        cls, name: str, data_dir: Path, manual_dir: str | Path | None, num_workers: int | None
    ) -> tfds.core.DatasetBuilder:
        """The builder of the folder `manual_dir`, or without that of what has been built under this name.

        Raises:
            ValueError: a faulty description, one of another name, or a folder that has changed since it was built.
            FileNotFoundError: no description, or without `manual_dir` nothing built.
        """
        if manual_dir is None:
            built = data_dir / cls.name / name / str(cls.VERSION)
            if not built.is_dir():
                raise FileNotFoundError(
                    f"data set {cls.name}/{name} is not built in {data_dir}; give its folder: "
                    "--config.data.manual_dir=DIR to scripts/train.py, or --dataset DIR to scripts/build_data.py"
                )
            return tfds.builder_from_directory(str(built))
        root = Path(manual_dir).expanduser().resolve()
        content = description.read(root)
        if name not in ("", content.name):
            raise ValueError(f"{root / description.FILE} describes {content.name!r}, expected {name!r}")
        config = FolderConfig(name=content.name, description=cls.DESCRIPTION, root=root, content=content)
        builder = cls(config=config, data_dir=str(data_dir), num_workers=num_workers)
        if builder.is_prepared() and dict(builder.info.metadata).get("source") != builder.source():
            raise ValueError(
                f"{root} has changed since it was built in {builder.data_path}; delete that folder to build it again, "
                "or give the changed data another name"
            )
        return builder

    def source(self) -> str:
        """A hash of the description and of names, sizes and times of all files the ids stand for."""
        config = self.builder_config
        ids = [name for path in self.lists().values() for name in file_builder.read_list(config.root, path, [])]
        paths = self.candidates(config.root)
        described = dataclasses.asdict(config.content)
        stats = [staging.file_state(path, config.root) for path in chain.from_iterable(map(paths, ids))]
        return hashlib.sha256(json.dumps([described, ids, stats]).encode()).hexdigest()

    def __init__(self, *, config: Any = None, **kwargs: Any):
        if not isinstance(config, FolderConfig):
            raise ValueError(
                "folder_mt is made from a folder that describes itself: mtl_jax.data.prepare('folder_mt/NAME', "
                "data_dir, manual_dir=FOLDER), or with what is built tfds.builder_from_directory"
            )
        super().__init__(config=config, **kwargs)

    def identity(self) -> list[str]:
        return [*super().identity(), json.dumps(dataclasses.asdict(self.builder_config.content))]

    def lists(self) -> Mapping[str, str]:
        return self.builder_config.content.splits

    def labels(self) -> Mapping[str, tfds.features.FeatureConnector]:
        found = {task: _KINDS[task].feature(label) for task, label in self.builder_config.content.labels.items()}
        return {**found, file_builder.LABELLED: tfds.features.Text()}

    def read_record(self, root: Path) -> Callable[[str], label_files.Reading]:
        return partial(_read_record, root, self.builder_config.content)

    def candidates(self, root: Path) -> Callable[[str], Sequence[Path]]:
        content = self.builder_config.content
        labels = [(root / label.folder, label.suffix) for label in content.labels.values()]
        images = [(root / content.images, suffix) for suffix in IMAGES]
        return lambda key: [folder / f"{key}{suffix}" for folder, suffix in (*images, *labels)]

    def find(self, dl_manager: tfds.download.DownloadManager) -> Path:
        config = self.builder_config
        wanted = [config.content.images, *(label.folder for label in config.content.labels.values())]
        if lost := [name for name in wanted if not (config.root / name).is_dir()]:
            raise FileNotFoundError(
                f"{config.root} has no folder {', '.join(lost)}; make it, or correct {description.FILE} there"
            )
        return config.root

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        self.info.metadata["source"] = self.source()
        self.info.metadata["description"] = dataclasses.asdict(self.builder_config.content)
        return super()._split_generators(dl_manager)


def _read_record(root: Path, content: Description, key: str) -> label_files.Reading:
    problems: list[str] = []
    record: dict[str, Any] = {"id": key}
    paths = [f"{content.images}/{key}{suffix}" for suffix in IMAGES]
    present = [name for name in paths if (root / name).is_file()]
    image = None
    if len(present) == 1:
        image = label_files.read(root, present[0], label_files.encoded(3), problems)
    else:
        found = f"{' and '.join(present)} are both there" if present else f"{paths[0]} (or {', '.join(IMAGES[1:])})"
        problems.append(found if present else f"{found} is missing")
    size = image[1] if image else (1, 1)
    record["image"] = image[0] if image else b""
    labelled = []
    for task, label in content.labels.items():
        name = f"{label.folder}/{key}{label.suffix}"
        record[task] = _KINDS[task].unlabelled(label, size)
        if (root / name).is_file() and (read := label_files.read(root, name, _KINDS[task].reader(label), problems)):
            record[task] = read[0]
            labelled.append(task)
            if image:
                label_files.check_size(name, read[1], size, f"the image {present[0]} is", problems)
    if not labelled and not problems:
        problems.append(f"id {key!r} has no label of any task; take it from the lists or add one")
    record[file_builder.LABELLED] = " ".join(labelled)
    return record, problems


class _Coded:
    """Labels that are stored as PNG: their reader makes one from either kind of file."""

    def __init__(self, reader: Callable[[Label], label_files.Reader]):
        self.reader = reader

    def feature(self, label: Label) -> tfds.features.FeatureConnector:
        return file_builder.png_feature()

    def unlabelled(self, label: Label, size: label_files.Size) -> Any:
        return pictures.encode_png(np.full((*size, 1), task_table.IGNORE, np.uint8))


class _Floats(_Coded):
    """Labels that are stored as float32."""

    def __init__(self, channels: int, reader: Callable[[Label], label_files.Reader]):
        super().__init__(reader)
        self._channels = channels

    def feature(self, label: Label) -> tfds.features.FeatureConnector:
        return file_builder.float_feature(self._channels)

    def unlabelled(self, label: Label, size: label_files.Size) -> Any:
        return np.zeros((*size, self._channels), np.float32)


class _Normals(_Floats):
    """Normals are stored as they are coded, as colours or as float32."""

    def feature(self, label: Label) -> tfds.features.FeatureConnector:
        return super().feature(label) if label.suffix == ".npy" else tfds.features.Image(shape=(None, None, 3))

    def unlabelled(self, label: Label, size: label_files.Size) -> Any:
        empty = super().unlabelled(label, size)
        return empty if label.suffix == ".npy" else pictures.encode_png(empty.astype(np.uint8))


def _load(label: Label) -> label_files.Load:
    return label_files.npy if label.suffix == ".npy" else pictures.decode_values


def _class_ids(label: Label) -> label_files.Reader:
    ids = dict.fromkeys(label.ignore, task_table.IGNORE)
    ids |= {label.first_id + i: i for i in range(len(label.classes))}
    classes = f"{label.first_id} to {label.first_id + len(label.classes) - 1}"
    ignored = "".join(f", {raw} (ignored)" for raw in label.ignore)
    return label_files.class_ids(_load(label), ids, f"{classes} ({len(label.classes)} classes){ignored}")


def _foreground(label: Label) -> label_files.Reader:
    return label_files.probabilities(label_files.npy) if label.suffix == ".npy" else _grey


def _grey(data: bytes) -> tuple[bytes, label_files.Size]:
    if pictures.has_palette(data):
        raise ValueError("its values are indices into a palette, expected grey levels, 255 for the foreground")
    if pictures.grey_step(data) == 1 and pictures.decode(data, 1).max() == 1:
        raise ValueError("its values are 0 and 1, expected grey levels, 255 for the foreground")
    return label_files.grey(data)


def _depth(label: Label) -> label_files.Reader:
    def load(data: bytes) -> np.ndarray:
        value = _load(label)(data)
        return value * label.unit if value.dtype.kind in "iu" else value

    return label_files.floats(load, 1, 0, _DEEPEST)


def _normals(label: Label) -> label_files.Reader:
    return _float_normals if label.suffix == ".npy" else _coded_normals


def _float_normals(data: bytes) -> tuple[np.ndarray, label_files.Size]:
    vectors, size = label_files.floats(label_files.npy, 3, -1.01, 1.01)(data)
    label_files.check_unit_length(vectors)
    return vectors, size


def _coded_normals(data: bytes) -> tuple[bytes, label_files.Size]:
    coded = pictures.decode(data, 3)
    vectors = coded * np.float32(2 / 255) - 1
    label_files.check_unit_length(vectors)
    length = np.linalg.norm(vectors, axis=2)
    coded[(length < _NO_VECTOR[0]) | (length > _NO_VECTOR[1])] = 0
    return pictures.encode_png(coded), (coded.shape[0], coded.shape[1])


_KINDS: dict[str, _Coded] = {
    "semseg": _Coded(_class_ids),
    "human_parts": _Coded(_class_ids),
    "sal": _Coded(_foreground),
    "normals": _Normals(3, _normals),
    "edge": _Coded(_foreground),
    "depth": _Floats(1, _depth),
}
