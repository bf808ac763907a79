"""NYUD for multi-task learning (NYU Depth v2: semantic segmentation, depth, surface normals, edges) as a tfds builder.

Two releases exist with the same images and splits (795 / 654 images of 480x640):

* `astmt` (arXiv 1904.08918): `images/ID.jpg`, `segmentation/ID.mat` (key `segmentation`), `depth/ID.mat` (key `depth`),
  `normals/ID.jpg`, `edge/ID.png`;
* `survey` (arXiv 2004.13379): `images/ID.jpg`, `segmentation/ID.png`, and `ID.npy` under `depth`, `normals` and `edge`.

Each has a `_subset` twin that takes any number of images of any size: samples, tests, smoke runs.

    builder = tfds.builder("nyud_mt/astmt", data_dir=...)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=...))
"""

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import scipy.io
import tensorflow_datasets as tfds

from mtl_jax.data import fetch, records

SPLITS = ("train", "val")
COUNTS = {"train": 795, "val": 654}
SIZE = (480, 640)
FOLDER = "NYUD_MT"
CLASSES = 40
_LISTED = 20  # problems spelled out in one error

_ETH = fetch.Source("NYUD_MT.tgz", "https://data.vision.ee.ethz.ch/kmaninis/share/MTL/NYUD_MT.tgz")
_DRIVE = fetch.Source(
    "NYUD_MT.tgz",
    "https://drive.usercontent.google.com/download?id=14EAEMXmd3zs2hIMY63UhHPSFPDAkiTzw&export=download&confirm=t",
)


@dataclass(kw_only=True)
class NyudConfig(tfds.core.BuilderConfig):
    """A release of the data set.

    Attributes:
        files: {feature: (folder, suffix)} below the data set's folder.
        source: where the archive can be downloaded.
        counts: images in each split, or None where any number will do.
        size: height and width of every image, or None where any will do.
    """

    files: Mapping[str, tuple[str, str]]
    source: fetch.Source
    counts: Mapping[str, int] | None = None
    size: tuple[int, int] | None = None


def _configs() -> Iterator[NyudConfig]:
    releases = {
        "astmt": ({"semseg": ".mat", "depth": ".mat", "normals": ".jpg", "edge": ".png"}, _ETH),
        "survey": ({"semseg": ".png", "depth": ".npy", "normals": ".npy", "edge": ".npy"}, _DRIVE),
    }
    for suffix, counts, size in (("", COUNTS, SIZE), ("_subset", None, None)):
        for name, (suffixes, source) in releases.items():
            files = {"image": ("images", ".jpg")}
            files |= {key: ("segmentation" if key == "semseg" else key, value) for key, value in suffixes.items()}
            yield NyudConfig(
                name=name + suffix,
                description=f"release {name}" + (", any number of images" if suffix else ""),
                files=files,
                source=source,
                counts=counts,
                size=size,
            )


class NyudMt(tfds.core.GeneratorBasedBuilder):
    """tfds builder `nyud_mt`, see the module's docstring. Always ArrayRecord: TensorFlow is never needed."""

    name = "nyud_mt"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 (as tfds declares it)
    BUILDER_CONFIGS = list(_configs())  # noqa: RUF012
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "manual_dir holds the folder NYUD_MT or an archive of it (NYUD_MT.tgz, .tar, .tar.gz or .zip)."
    )

    def __init__(self, *, file_format: Any = None, **kwargs: Any):
        super().__init__(file_format=file_format or "array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features
        zlib = features.Encoding.ZLIB
        config = self.builder_config
        if config.files["normals"][1] == ".npy":
            normals = features.Tensor(shape=(None, None, 3), dtype=np.float32, encoding=zlib)
        else:
            normals = features.Image(shape=(None, None, 3), dtype=np.uint8)
        return tfds.core.DatasetInfo(
            builder=self,
            description="NYU Depth v2 with labels for semantic segmentation, depth, surface normals and edges.",
            features=features.FeaturesDict(
                {
                    "id": features.Text(),
                    "image": features.Image(shape=(None, None, 3), dtype=np.uint8),
                    "semseg": features.Image(shape=(None, None, 1), dtype=np.uint8, encoding_format="png"),
                    "depth": features.Tensor(shape=(None, None, 1), dtype=np.float32, encoding=zlib),
                    "normals": normals,
                    "edge": features.Image(shape=(None, None, 1), dtype=np.uint8, encoding_format="png"),
                }
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        config = self.builder_config
        root = fetch.locate(
            FOLDER,
            config.source,
            marker="gt_sets",
            manual_dir=fetch.given_manual_dir(dl_manager),
            download_dir=Path(dl_manager.download_dir) / self.name / config.name.removesuffix("_subset"),
        )
        problems: list[str] = []
        ids = {split: _read_ids(root, split, problems) for split in SPLITS}
        everything = list(chain.from_iterable(ids.values()))
        repeated = sorted(key for key, count in Counter(everything).items() if count > 1)
        problems += [
            f"id {key!r} is listed more than once in gt_sets/train.txt and gt_sets/val.txt" for key in repeated
        ]
        for split, expected in (config.counts or {}).items():
            if len(ids[split]) != expected:
                problems.append(
                    f"gt_sets/{split}.txt lists {len(ids[split])} images, expected {expected}; a part of the data set "
                    f"can be built as nyud_mt/{config.name}_subset"
                )
        if problems:  # then the images are looked at for what else is wrong, and nothing is written
            _raise(problems + _all_problems(root, config, everything), root)
        later = {
            split: list(chain.from_iterable(ids[name] for name in SPLITS[i + 1 :])) for i, split in enumerate(SPLITS)
        }
        return {split: self._generate_examples(root, ids[split], later[split]) for split in SPLITS}

    def _generate_examples(self, root: Path, ids: list[str], later: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields (id, record); after the first faulty image it only collects what is wrong, `later` ids included."""
        for i, key in enumerate(ids):
            record, problems = _read_record(root, self.builder_config, key)
            if problems:
                _raise(problems + _all_problems(root, self.builder_config, ids[i + 1 :] + later), root)
            yield key, record


def _read_ids(root: Path, split: str, problems: list[str]) -> list[str]:
    path = root / "gt_sets" / f"{split}.txt"
    if not path.is_file():
        problems.append(f"gt_sets/{split}.txt is missing")
        return []
    ids = path.read_text().split()
    if not ids:
        problems.append(f"gt_sets/{split}.txt lists no image")
    return ids


def _all_problems(root: Path, config: NyudConfig, ids: list[str]) -> list[str]:
    return [problem for key in dict.fromkeys(ids) for problem in _read_record(root, config, key)[1]]


def _raise(problems: list[str], root: Path) -> None:
    lines = problems[:_LISTED]
    if len(problems) > _LISTED:
        lines.append(f"and {len(problems) - _LISTED} more")
    raise ValueError(
        f"{len(problems)} problem(s) with the {FOLDER} files in {root}; nothing was built. Replace the files and build "
        "again:\n  " + "\n  ".join(lines)
    )


def _read_record(root: Path, config: NyudConfig, key: str) -> tuple[dict[str, Any], list[str]]:
    """The record of one image and what is wrong with it."""
    record: dict[str, Any] = {"id": key}
    sizes: dict[str, tuple[int, ...]] = {}
    problems = []
    for feature, (folder, suffix) in config.files.items():
        name = f"{folder}/{key}{suffix}"
        try:
            data = (root / name).read_bytes()
            record[feature], sizes[feature] = _READERS[feature, suffix](data)
        except FileNotFoundError:
            problems.append(f"{name} is missing")
        except (ValueError, OSError) as error:
            problems.append(f"{name}: {error}")
    expected = config.size or sizes.get("image")
    for feature, size in sizes.items():
        if expected and size != expected:
            folder, suffix = config.files[feature]
            reason = "expected" if feature == "image" or config.size else "the image is"
            problems.append(f"{folder}/{key}{suffix}: size {_text(size)}, {reason} {_text(expected)}")
    return record, problems


# Readers: the bytes of a file -> (what the record stores, (height, width)). They raise ValueError on a faulty file.


def _encoded(channels: int):
    def read(data: bytes) -> tuple[bytes, tuple[int, int]]:
        return data, records.decode_image(data, channels).shape[:2]

    return read


def _edge_png(data: bytes) -> tuple[bytes, tuple[int, int]]:
    try:
        return _encoded(1)(data)
    except ValueError:
        colour = records.decode_image(data, 3)  # raises again unless only the number of channels was wrong
    return _png(cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY)), colour.shape[:2]


def _mat(key: str):
    def load(data: bytes) -> np.ndarray:
        try:
            content = scipy.io.loadmat(io.BytesIO(data))
        except Exception as error:  # scipy raises whatever the bytes lead it to
            raise ValueError(f"not a readable .mat file ({error})") from error
        if key not in content:
            have = ", ".join(name for name in content if not name.startswith("__")) or "none"
            raise ValueError(f"no key {key!r}; the file has: {have}")
        return content[key]

    return load


def _npy(data: bytes) -> np.ndarray:
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"not a readable .npy file ({error})") from error


def _map(value: np.ndarray, channels: int) -> np.ndarray:
    """[H, W] or [H, W, channels] -> [H, W, channels]"""
    shape = value.shape
    if channels == 1 and value.ndim == 2:
        value = value[..., None]
    if value.ndim != 3 or value.shape[2] != channels or 0 in value.shape:
        raise ValueError(f"shape {shape}, expected [H, W{'' if channels == 1 else f', {channels}'}]")
    if value.dtype.kind not in "biuf":
        raise ValueError(f"values of type {value.dtype}, expected numbers")
    return value


def _segmentation(load):
    def read(data: bytes) -> tuple[bytes, tuple[int, int]]:
        raw = _map(load(data), 1)
        if wrong := sorted({float(x) for x in np.unique(raw) if x not in range(CLASSES + 1)}):
            shown = ", ".join(f"{x:g}" for x in wrong[:5]) + (", ..." if len(wrong) > 5 else "")
            raise ValueError(f"class ids {shown}, expected whole numbers from 0 (void) to {CLASSES}")
        ids = np.where(raw == 0, 255, raw.astype(np.int64) - 1).astype(np.uint8)
        return _png(ids), ids.shape[:2]

    return read


def _floats(load, channels: int):
    def read(data: bytes) -> tuple[np.ndarray, tuple[int, int]]:
        value = _map(load(data), channels).astype(np.float32)
        if bad := int(np.sum(~np.isfinite(value))):
            raise ValueError(f"{bad} values are NaN or infinite")
        return value, value.shape[:2]

    return read


def _edge_npy(data: bytes) -> tuple[bytes, tuple[int, int]]:
    value, size = _floats(_npy, 1)(data)
    if not np.all((value >= 0) & (value <= 1)):
        raise ValueError(f"values from {value.min():g} to {value.max():g}, expected 0 to 1")
    return _png(np.rint(value * 255).astype(np.uint8)), size


def _png_values(data: bytes) -> np.ndarray:
    return records.decode_image(data, 1)


_READERS = {
    ("image", ".jpg"): _encoded(3),
    ("semseg", ".mat"): _segmentation(_mat("segmentation")),
    ("semseg", ".png"): _segmentation(_png_values),
    ("depth", ".mat"): _floats(_mat("depth"), 1),
    ("depth", ".npy"): _floats(_npy, 1),
    ("normals", ".jpg"): _encoded(3),
    ("normals", ".npy"): _floats(_npy, 3),
    ("edge", ".png"): _edge_png,
    ("edge", ".npy"): _edge_npy,
}


def _png(x: np.ndarray) -> bytes:
    return cv2.imencode(".png", x)[1].tobytes()


def _text(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))
