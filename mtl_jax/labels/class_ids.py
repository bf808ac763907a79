"""Class ids: semantic segmentation, human parts."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.codecs import label_pictures, pictures
from mtl_jax.labels import colors, readers
from mtl_jax.labels.kind import IGNORE, Conventions, LabelKind, check_png, plane
from mtl_jax.labels.label_files import LabelFiles
from mtl_jax.labels.readers import Reader

_LISTED = 9  # class ids spelled out in a caption
_PALETTES = {"voc": colors.voc_palette, "parts": colors.parts_palette}


@dataclass(frozen=True)
class ClassIds(LabelKind):
    """A class for every pixel: labels are ids from 0, uint8 `[H, W, 1]`, with 255 where there is none.

    Predictions are class maps, int32 `[B, H, W]`: the channel with the largest logit.

    Attributes:
        palette: Colours of the classes, "voc" or "parts".
    """

    palette: Literal["voc", "parts"] = "voc"

    dtype = "uint8"
    has_classes = True
    prediction_interpolation = "nearest"
    folder_options = ("classes", "first_id", "ignore", "colors")
    constant_from = "val"

    def meaning(self, conventions: Conventions) -> str:
        return "id of the class, from 0"

    def num_logits(self, num_classes: int) -> int:
        return num_classes

    def decode(self, stored: np.ndarray, conventions: Conventions) -> np.ndarray:
        if stored.dtype.kind not in "ui" or stored.max(initial=0) > IGNORE or stored.min(initial=0) < 0:
            raise ValueError(
                f"holds {stored.dtype} from {stored.min():g} to {stored.max():g}, expected class ids, whole numbers "
                f"from 0 to {IGNORE}"
            )
        return stored.astype(np.uint8)

    def draw_random(self, rng: np.random.Generator, shape: tuple[int, ...], num_classes: int) -> np.ndarray:
        return rng.integers(0, num_classes, (*shape, 1), np.int32)

    def activate(self, logits: jax.Array) -> jax.Array:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)

    def best_constant(self, labels: Iterable[np.ndarray]) -> np.ndarray:
        """Returns the most frequent class of the labels, which no other constant beats in mIoU, int32 `[1, 1]`."""
        counts = np.zeros(IGNORE + 1, np.int64)
        for label in labels:
            counts += np.bincount(label.reshape(-1), minlength=len(counts))
        return np.full((1, 1), np.argmax(counts[:IGNORE]), np.int32)

    def decode_prediction(self, data: bytes, task: str) -> np.ndarray:
        prediction = pictures.decode_values(data)  # a palette's indices are the class ids
        check_png(data, self.channels)
        return prediction[..., 0]

    def check_prediction(self, prediction: np.ndarray, num_classes: int | None) -> None:
        if num_classes is not None and prediction.max(initial=0) >= num_classes:
            raise ValueError(f"class id {prediction.max()}, expected 0 to {num_classes - 1}")

    def describe_prediction(
        self, num_classes: int, class_names: Sequence[str] | None, conventions: Conventions
    ) -> dict[str, Any]:
        """Adds the number of the "classes", their "class_names" (None = not known) and "class_colors", RGB."""
        return {
            **super().describe_prediction(num_classes, class_names, conventions),
            "range": [0, num_classes - 1],
            "classes": num_classes,
            "class_names": None if class_names is None else list(class_names),
            "class_colors": _PALETTES[self.palette]()[:num_classes].tolist(),
        }

    def paint(
        self, array: np.ndarray, *, is_label: bool, low: float | None = None, high: float | None = None
    ) -> np.ndarray:
        return _PALETTES[self.palette]()[plane(array).astype(np.uint8)]

    def overlay(self, image: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Draws the classes' colours at half strength over the image, with a white line between two classes."""
        drawn = colors.blend(image, self.paint(label, is_label=True))
        drawn[colors.boundary(label[..., 0])] = colors.BOUNDARY
        return drawn

    def summarise(self, values: np.ndarray) -> str:
        ids = [int(value) for value in np.unique(values)]
        more = f" +{len(ids) - _LISTED}" if len(ids) > _LISTED else ""
        return ("classes " if len(ids) > 1 else "class ") + " ".join(map(str, ids[:_LISTED])) + more

    def reader(self, files: LabelFiles) -> Reader:
        if files.colors:
            ids = dict.fromkeys(map(_packed, files.ignore_colors), IGNORE)
            ids |= {_packed(color): i for i, color in enumerate(files.colors)}
            ignored = "".join(f", {list(color)} (ignored)" for color in files.ignore_colors)
            expected = f"the colours of {len(files.classes)} classes{ignored}"
            return readers.class_ids(_packed_colors(files), ids, expected, _color_text)
        ids = dict.fromkeys(files.ignore, IGNORE)
        ids |= {files.first_id + i: i for i in range(len(files.classes))}
        classes = f"{files.first_id} to {files.first_id + len(files.classes) - 1}"
        ignored = "".join(f", {raw} (ignored)" for raw in files.ignore)
        return readers.class_ids(files.load(palette=True), ids, f"{classes} ({len(files.classes)} classes){ignored}")


def _packed(color: Sequence[int]) -> int:
    """Returns a colour (red, green, blue) as one whole number."""
    red, green, blue = color
    return red << 16 | green << 8 | blue


def _packed_colors(files: LabelFiles) -> Callable[[bytes], np.ndarray]:
    """Returns the function that reads a file with colours as packed colours, int32 `[H, W]`."""
    load = readers.npy if files.suffix == ".npy" else label_pictures.colors

    def packed(data: bytes) -> np.ndarray:
        return readers.as_map(load(data), 3).astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)

    return packed


def _color_text(packed: float) -> str:
    value = int(packed)
    return str([value >> 16, value >> 8 & 255, value & 255])
