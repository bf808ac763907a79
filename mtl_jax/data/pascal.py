"""The tfds builder of PASCAL-Context for multi-task learning (semseg, human parts, saliency, normals, edges).

The data set PASCAL_MT (arXiv 1904.08918) has 4998 / 5105 images of many sizes, in these files:

* `JPEGImages/ID.jpg`;
* `semseg/VOC12/ID.png` if it exists, otherwise `semseg/pascal-context/ID.png`: VOC's 20 classes and background;
* `pascal-context/trainval/ID.mat` (key `LabelMap`): 459 classes, from which two kinds of edges are computed: the labels
  to learn, and the boundaries against which predicted edges are scored;
* `human_parts/ID.mat` (key `anno`): the annotation of PASCAL-Part;
* `normals_distill/ID.png`, `sal_distill/ID.png`: predictions of networks.

`pascal_mt/context` is the whole data set; `pascal_mt/context_subset` takes any number of images, for samples, tests and
smoke runs.

    builder = tfds.builder("pascal_mt/context", data_dir=...)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=...))
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds

from mtl_jax.codecs import pictures
from mtl_jax.data import fetch, file_builder, pascal_labels, records
from mtl_jax.labels import readers
from mtl_jax.runtime import messages

COUNTS = {"train": 4998, "val": 5105}
CLASSES = 21  # with the background

_ETH = fetch.Download("PASCAL_MT.tgz", "https://data.vision.ee.ethz.ch/kmaninis/share/MTL/PASCAL_MT.tgz")
_LABELS = ("semseg", "human_parts", "sal", "normals", "edge")
_FILES = {
    "image": "JPEGImages/{}.jpg",
    "voc": "semseg/VOC12/{}.png",
    "semseg": "semseg/pascal-context/{}.png",
    "context": "pascal-context/trainval/{}.mat",
    "parts": "human_parts/{}.mat",
    "normals": "normals_distill/{}.png",
    "sal": "sal_distill/{}.png",
}
_semseg = readers.class_ids(
    pictures.decode_values,
    {255: 255} | {i: i for i in range(CLASSES)},
    f"0 (background) to {CLASSES - 1}, and 255 (void)",
)


class PascalMt(file_builder.FilesBuilder):
    """The tfds builder `pascal_mt`, see the docstring of the module.

    Labels may have another size than their image; `records.decode` resizes them. A stored value x of the normals stands
    for 2x/255 - 1; (0, 0, 0) stands for a missing normal.
    """

    name = "pascal_mt"
    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES = {  # noqa: RUF012 (as tfds declares it)
        "1.0.0": "First release.",
        "1.1.0": "The boundaries that edges are scored against.",
    }
    BUILDER_CONFIGS = [  # noqa: RUF012
        file_builder.FilesConfig(name="context", description="the whole data set", counts=COUNTS, source=_ETH),
        file_builder.FilesConfig(name="context_subset", description="any number of its images", source=_ETH),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "manual_dir holds the folder PASCAL_MT or an archive of it (PASCAL_MT.tgz, .tar, .tar.gz or .zip)."
    )
    FOLDER = "PASCAL_MT"
    MARKER = "ImageSets/Context"
    DESCRIPTION = (
        "PASCAL-Context with labels for semantic segmentation, human parts, saliency, surface normals and edges."
    )

    def lists(self) -> Mapping[str, str]:
        return {split: f"ImageSets/Context/{split}.txt" for split in COUNTS}

    def labels(self) -> Mapping[str, tfds.features.FeatureConnector]:
        coded = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
        return {
            **{task: coded if task == "normals" else file_builder.png_feature() for task in _LABELS},
            file_builder.LABELLED: tfds.features.Text(),
        }

    def extra(self) -> Mapping[str, tfds.features.FeatureConnector]:
        return {records.BOUNDARY: file_builder.png_feature()}

    def read_record(self, root: Path) -> Callable[[str], readers.Reading]:
        return partial(_read_record, root)

    def candidates(self, root: Path) -> Callable[[str], Sequence[Path]]:
        return lambda key: [root / name.format(key) for name in _FILES.values()]


def _read_record(root: Path, key: str) -> readers.Reading:
    names = {kind: name.format(key) for kind, name in _FILES.items()}
    names["semseg"] = names["voc"] if (root / names["voc"]).is_file() else names["semseg"]
    problems: list[str] = []
    sizes: dict[str, readers.Size] = {}

    def read(kind: str, reader: readers.Reader) -> Any:
        """Returns the value that the reader reads from a file, or None if there is a problem."""
        content = readers.read(root, names[kind], reader, problems)
        if content is None:
            return None
        value, sizes[names[kind]] = content
        return value

    record = {"id": key, "image": read("image", readers.encoded(3))}
    record["semseg"] = read("semseg", _semseg)
    record["sal"] = read("sal", readers.grey)
    size = sizes.get(names["image"], (1, 1))  # a faulty image is reported already, so any size will do
    parts = read("parts", partial(_human_parts, size))
    context = read("context", _label_map)
    normals = read("normals", _colours)
    image = sizes.pop(names["image"], None)
    for name, label_size in sizes.items():
        if image and not _same_shape(label_size, image):
            problems.append(
                f"{name}: size {messages.size_text(label_size)}, the image is {messages.size_text(image)}: "
                "not of the same shape"
            )
    if normals is not None and context is not None:
        try:
            record["normals"] = pictures.encode_png(_trusted(normals, context))
        except ValueError as error:
            problems.append(f"{names['normals']}: {error}")
    if not problems:
        from mtl_jax.boundaries.labels import label_boundary  # imports Numba, which training does not need

        record["human_parts"] = pictures.encode_png(parts[..., None])
        record["edge"] = pictures.encode_png(255 * pascal_labels.edges(context)[..., None])
        record[records.BOUNDARY] = pictures.encode_png(255 * label_boundary(context)[..., None].astype(np.uint8))
        labelled = [task for task in _LABELS if task != "human_parts" or parts.any()]
        record[file_builder.LABELLED] = " ".join(labelled)
    return record, problems


def _human_parts(size: readers.Size, data: bytes) -> tuple[np.ndarray, readers.Size]:
    parts = pascal_labels.human_parts(readers.mat("anno")(data), size)
    return parts, parts.shape[:2]


def _label_map(data: bytes) -> tuple[np.ndarray, readers.Size]:
    labels = pascal_labels.label_map(readers.mat("LabelMap")(data))
    return labels, labels.shape[:2]


def _colours(data: bytes) -> tuple[np.ndarray, readers.Size]:
    colours = pictures.decode(data, 3)
    if (colours == colours[..., :1]).all():
        raise ValueError("a grey picture, expected 3 channels")
    return colours, colours.shape[:2]


def _same_shape(size: readers.Size, other: readers.Size) -> bool:
    """Returns True if two sizes have the same aspect ratio, apart from the rounding of a resize."""
    (height, width), (other_height, other_width) = size, other
    expected = height * other_width / other_height
    return abs(width - expected) <= max(2.0, 0.02 * expected)


def _trusted(normals: np.ndarray, context: np.ndarray) -> np.ndarray:
    """Sets coded normals, uint8 `[H, W, 3]`, to (0, 0, 0) at the pixels where they cannot be trusted.

    Raises:
        ValueError: the trusted normals are no unit vectors.
    """
    height, width = normals.shape[:2]
    labels = cv2.resize(context, (width, height), interpolation=cv2.INTER_NEAREST)
    keep = pascal_labels.normals_mask(labels)
    readers.check_unit_length(normals[keep].astype(np.float32) * (2 / 255) - 1)
    return normals * keep[..., None].astype(np.uint8)
