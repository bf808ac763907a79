"""Class ids: semantic segmentation, human parts."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.codecs import label_pictures, map_files, pictures
from mtl_jax.labels import colors, keys, readers
from mtl_jax.labels.error_maps import ErrorMap, WrongPixels, mean_of
from mtl_jax.labels.keys import Key, Note, Style, Swatches
from mtl_jax.labels.kind import IGNORE, Conventions, LabelKind, check_png, percent, plane
from mtl_jax.labels.label_files import LabelFiles
from mtl_jax.labels.readers import Reader
from mtl_jax.labels.sizes import resize

_LISTED, _LISTED_IDS = 2, 9  # names and class ids spelled out in a caption
_ROUNDING = 1e-4  # by which the sum of probabilities in float32 may differ from 1


@dataclass(frozen=True)
class ClassIds(LabelKind):
    """A class for every pixel: labels are ids from 0, uint8 `[H, W, 1]`, with 255 where there is none.

    Predictions are class maps, int32 `[B, H, W]`: the channel with the largest logit.
    """

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

    def soften(self, logits: jax.Array) -> jax.Array:
        """Returns the probabilities of the classes, the softmax of the logits."""
        return jax.nn.softmax(logits, axis=-1)

    def decide(self, values: np.ndarray) -> np.ndarray:
        """Returns the most probable class, int32 `[H, W]`."""
        return np.argmax(values, axis=-1).astype(np.int32)

    def decide_at(self, values: np.ndarray, height: int, width: int) -> np.ndarray:
        """Returns the most probable class once probabilities are resized linearly, int32 `[height, width]`.

        The classes are resized one after another beside a running maximum, so that no array holds all of them at the
        new size. A class that is nowhere as probable as 1 / C is left out: another one is more probable everywhere.

        Args:
            values: Probabilities `[h, w, C]`, whose sum is 1 in every pixel.
            height: Height of the result.
            width: Width of the result.
        """
        return self._most_probable(values, height, width)[0]

    def _most_probable(self, values: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the result of `decide_at`, and the probability of the class of each pixel, float32."""
        least = (1 - _ROUNDING) / values.shape[-1]
        classes = [i for i in range(values.shape[-1]) if values[..., i].max() >= least]
        ids, highest = np.zeros((height, width), np.int32), np.full((height, width), -1, np.float32)
        for i in classes:
            probability = resize(values[..., i].astype(np.float32), height, width, cv2.INTER_LINEAR)
            np.copyto(ids, i, where=probability > highest)
            np.maximum(highest, probability, out=highest)
        return ids, highest

    def confidence(self, values: np.ndarray) -> np.ndarray | None:
        """Returns the softmax probability of the most probable class, float32 `[H, W]`."""
        return values.max(axis=-1).astype(np.float32)

    def confidence_at(self, values: np.ndarray, height: int, width: int) -> np.ndarray | None:
        return self._most_probable(values, height, width)[1]

    def as_label(self, decided: np.ndarray, conventions: Conventions) -> np.ndarray:
        return super().as_label(decided, conventions).astype(np.uint8)

    def map_meaning(self, conventions: Conventions) -> str:
        return self.meaning(conventions)

    def map_files(self, decided: np.ndarray, num_classes: int) -> dict[str, bytes]:
        return {".png": map_files.palette_png(decided.astype(np.uint8), self.palette(num_classes))}

    def describe_map_files(self, conventions: Conventions) -> dict[str, str]:
        return {".png": "PNG with a palette: the index of a pixel is the id of its class, from 0"}

    def best_constant(self, labels: Iterable[np.ndarray]) -> np.ndarray:
        """Returns the most frequent class of the labels, which no other constant beats in mIoU, int32 `[1, 1]`."""
        counts = np.zeros(IGNORE + 1, np.int64)
        for label in labels:
            counts += np.bincount(label.reshape(-1), minlength=len(counts))
        return np.full((1, 1), np.argmax(counts[:IGNORE]), np.int32)

    def count_classes(self, label: np.ndarray, num_classes: int) -> np.ndarray:
        """Returns how many pixels each class has in a delivered label `[H, W, 1]`, int64 `[C]`.

        Raises:
            ValueError: The label has the id of a class that there is not.
        """
        counts = np.bincount(label.astype(np.uint8).reshape(-1), minlength=IGNORE + 1)[:IGNORE].astype(np.int64)
        if counts[num_classes:].any():
            wrong = num_classes + int(np.flatnonzero(counts[num_classes:])[-1])
            raise ValueError(f"a label has the class id {wrong}, expected 0 to {num_classes - 1}")
        return counts[:num_classes]

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
            "class_colors": self.palette(num_classes).tolist(),
        }

    def palette(self, classes: int) -> np.ndarray:
        """Returns the colours of the first classes, RGB uint8 `[classes, 3]`.

        Raises:
            ValueError: There are more classes than ids, of which 255 is none.
        """
        if not 0 <= classes <= colors.CLASSES:
            raise ValueError(f"a palette of {classes} colours was asked for; class ids allow 0 to {colors.CLASSES}")
        return colors.class_palette()[:classes].copy()

    def shown(self, array: np.ndarray, *, is_label: bool) -> np.ndarray:
        return plane(array) != IGNORE

    def paint(
        self, array: np.ndarray, *, is_label: bool, low: float | None = None, high: float | None = None
    ) -> np.ndarray:
        return colors.class_palette()[np.minimum(plane(array).astype(np.uint8), colors.CLASSES - 1)]

    def overlay(
        self,
        image: np.ndarray,
        array: np.ndarray,
        *,
        is_label: bool,
        low: float | None = None,
        high: float | None = None,
    ) -> np.ndarray:
        """Draws the classes' colours over the image, with a white line between two classes."""
        drawn = colors.blend(image, self.paint(array, is_label=is_label))
        drawn[colors.boundary(plane(array))] = colors.BOUNDARY
        return drawn

    def key(
        self,
        arrays: Sequence[tuple[np.ndarray, bool]],
        *,
        style: Style,
        names: Sequence[str],
        conventions: Conventions,
        low: float | None,
        high: float | None,
    ) -> Key:
        """Returns the names of the classes that occur, the most frequent first."""
        ids = _by_frequency(np.concatenate([plane(array).reshape(-1) for array, _ in arrays]))
        drawn = [value for value in ids if value != IGNORE]
        entries = [(colors.class_palette()[value], keys.name_of(value, names)) for value in drawn]
        return Swatches(tuple(entries)) if entries else Note("no class")

    def errors(self, prediction: np.ndarray, label: np.ndarray) -> ErrorMap:
        """Returns the pixels with a wrong class."""
        wrong = (plane(prediction) != plane(label)).astype(np.float32)
        wrong[~self.labelled(label)] = np.nan
        return WrongPixels(wrong, f"{percent(mean_of(wrong))} of the pixels wrong")

    def summarise(self, values: np.ndarray, names: Sequence[str] = ()) -> str:
        """Returns the classes, the most frequent first."""
        ids = _by_frequency(values.reshape(-1))
        listed = ids[: _LISTED if names else _LISTED_IDS]
        texts = [keys.name_of(value, names) for value in listed] if names else list(map(str, listed))
        more = f" + {len(ids) - len(listed)} more" if len(ids) > len(listed) else ""
        if names:
            return ", ".join(texts) + more
        return ("classes " if len(ids) > 1 else "class ") + " ".join(texts) + more

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

    def written_files(self, class_names: Sequence[str], conventions: Conventions) -> LabelFiles:
        return LabelFiles(classes=tuple(class_names))

    def encode_label(self, label: np.ndarray) -> bytes:
        """Returns a PNG with a palette, whose indices are the class ids; 255, white, where there is none."""
        palette = np.concatenate([self.palette(colors.CLASSES), [colors.BOUNDARY]]).astype(np.uint8)
        return map_files.palette_png(plane(label).astype(np.uint8), palette)


def _by_frequency(values: np.ndarray) -> list[int]:
    """Returns the class ids that occur among `[N]`, the most frequent first."""
    counts = np.bincount(values.astype(np.int64), minlength=1)
    return [int(value) for value in np.argsort(-counts, kind="stable") if counts[value]]


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
