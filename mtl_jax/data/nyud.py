"""The tfds builder of NYUD for multi-task learning (NYU Depth v2: semantic segmentation, depth, normals, edges).

There are two releases with the same images and splits (795 / 654 images of 480x640):

* `astmt` (arXiv 1904.08918): `images/ID.jpg`, `segmentation/ID.mat` (key `segmentation`), `depth/ID.mat` (key `depth`),
  `normals/ID.jpg`, `edge/ID.png`;
* `survey` (arXiv 2004.13379): `images/ID.jpg`, `segmentation/ID.png`, and `ID.npy` under `depth`, `normals` and `edge`.

Each release also has a configuration `_subset` for any number of images of any size, for samples, tests and smoke runs.

    builder = tfds.builder("nyud_mt/astmt", data_dir=...)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=...))
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from mtl_jax.codecs import pictures
from mtl_jax.data import fetch, file_builder
from mtl_jax.labels import readers

COUNTS = {"train": 795, "val": 654}
SIZE = (480, 640)
CLASSES = 40
DEEPEST = 254.0  # metres; 255 is the value of ignored pixels

_ETH = fetch.Download("NYUD_MT.tgz", "https://data.vision.ee.ethz.ch/kmaninis/share/MTL/NYUD_MT.tgz")
_DRIVE = fetch.Download.on_drive("NYUD_MT.tgz", "14EAEMXmd3zs2hIMY63UhHPSFPDAkiTzw")

_IDS = {0: 255} | {raw: raw - 1 for raw in range(1, CLASSES + 1)}
_segmentation = partial(readers.class_ids, ids=_IDS, expected=f"whole numbers from 0 (void) to {CLASSES}")
_READERS: dict[tuple[str, str], readers.Reader] = {
    ("image", ".jpg"): readers.encoded(3),
    ("semseg", ".mat"): _segmentation(readers.mat("segmentation")),
    ("semseg", ".png"): _segmentation(pictures.decode_values),
    ("depth", ".mat"): readers.floats(readers.mat("depth"), 1, 0, DEEPEST),
    ("depth", ".npy"): readers.floats(readers.npy, 1, 0, DEEPEST),
    ("normals", ".jpg"): readers.encoded(3),
    ("normals", ".npy"): readers.floats(readers.npy, 3, -1.01, 1.01),
    ("edge", ".png"): readers.grey,
    ("edge", ".npy"): readers.probabilities(readers.npy),
}


@dataclass(kw_only=True)
class NyudConfig(file_builder.FilesConfig):
    """A release of the data set.

    Attributes:
        files: {feature: (folder, suffix)} of the files below the data set's folder.
        size: Height and width of every image; None permits any size.
    """

    files: Mapping[str, tuple[str, str]]
    size: tuple[int, int] | None = None


def _configs() -> Iterator[NyudConfig]:
    releases = {
        "astmt": ({"semseg": ".mat", "depth": ".mat", "normals": ".jpg", "edge": ".png"}, _ETH),
        "survey": ({"semseg": ".png", "depth": ".npy", "normals": ".npy", "edge": ".npy"}, _DRIVE),
    }
    for suffix, counts, size in (("", COUNTS, SIZE), ("_subset", None, None)):
        for name, (suffixes, source) in releases.items():
            paths = {"image": ("images", ".jpg")}
            paths |= {key: ("segmentation" if key == "semseg" else key, value) for key, value in suffixes.items()}
            yield NyudConfig(
                name=name + suffix,
                description=f"release {name}" + (", any number of images" if suffix else ""),
                files=paths,
                source=source,
                counts=counts,
                size=size,
            )


class NyudMt(file_builder.FilesBuilder):
    """The tfds builder `nyud_mt`, see the docstring of the module."""

    name = "nyud_mt"
    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES = {  # noqa: RUF012 (as tfds declares it)
        "1.0.0": "First release.",
        "1.1.0": "Records in the order of the lists; float maps faster to read.",
    }
    BUILDER_CONFIGS = list(_configs())  # noqa: RUF012
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "manual_dir holds the folder NYUD_MT or an archive of it (NYUD_MT.tgz, .tar, .tar.gz or .zip)."
    )
    FOLDER = "NYUD_MT"
    MARKER = "gt_sets"
    DESCRIPTION = "NYU Depth v2 with labels for semantic segmentation, depth, surface normals and edges."

    def lists(self) -> Mapping[str, str]:
        return {split: f"gt_sets/{split}.txt" for split in ("train", "val")}

    def labels(self) -> Mapping[str, tfds.features.FeatureConnector]:
        coded = self.builder_config.files["normals"][1] == ".jpg"
        return {
            "semseg": file_builder.png_feature(),
            "depth": file_builder.float_feature(1),
            "normals": tfds.features.Image(shape=(None, None, 3)) if coded else file_builder.float_feature(3),
            "edge": file_builder.png_feature(),
        }

    def read_record(self, root: Path) -> Callable[[str], readers.Reading]:
        return partial(_read_record, root, self.builder_config)

    def candidates(self, root: Path) -> Callable[[str], Sequence[Path]]:
        paths = self.builder_config.files.values()
        return lambda key: [root / folder / f"{key}{suffix}" for folder, suffix in paths]


def _read_record(root: Path, config: NyudConfig, key: str) -> readers.Reading:
    record: dict[str, Any] = {"id": key}
    sizes: dict[str, readers.Size] = {}
    problems: list[str] = []
    for feature, (folder, suffix) in config.files.items():
        name = f"{folder}/{key}{suffix}"
        if (content := readers.read(root, name, _READERS[feature, suffix], problems)) is not None:
            record[feature], sizes[name] = content
    image = sizes.get(f"images/{key}.jpg")
    for name, size in sizes.items():
        if config.size:
            readers.check_size(name, size, config.size, "expected", problems)
        elif image:
            readers.check_size(name, size, image, "the image is", problems)
    return record, problems
