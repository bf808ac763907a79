"""Unit vectors: surface normals."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.codecs import pictures
from mtl_jax.labels import readers
from mtl_jax.labels.kind import IGNORE, Conventions, LabelKind, StoredForm, ignore_zeros, mean_value
from mtl_jax.labels.readers import LabelFiles, Reader, Size

_NORM_EPS = np.finfo(np.float32).eps  # shortens the faint vectors that cubic resampling leaves around invalid regions
_NO_VECTOR = (0.5, 1.5)  # coded vectors of a length outside are no unit vectors: pixels without a label


@dataclass(frozen=True)
class UnitVectors(LabelKind):
    """A direction for every pixel, x right and y down: labels are float32 `[H, W, 3]`, zero or 255 without a label.

    Predictions are unit vectors v as 255 (v + 1) / 2, `[B, H, W, 3]`.
    """

    channels = 3
    void = 0
    label_interpolation = "cubic"
    fit_interpolation = "cubic"
    legend = "x red, y green, z blue, from dark (-1) to bright (+1)"

    def meaning(self) -> str:
        return "unit vector v as 255 (v + 1) / 2"

    def num_logits(self, num_classes: int) -> int:
        return 3

    def decode(self, stored: np.ndarray, conventions: Conventions) -> np.ndarray:
        if stored.dtype != np.uint8:
            return stored.astype(conventions.normals_dtype)
        vectors = cv2.LUT(stored, _code_values(conventions.normals_dtype))
        if conventions.normals_void:
            vectors = cv2.copyTo(vectors, cv2.bitwise_not(cv2.inRange(stored, (0, 0, 0), (0, 0, 0))))
        return vectors.reshape(stored.shape)

    def flip(self, label: np.ndarray) -> np.ndarray:
        label[..., 0] *= -1
        return label

    def rotate(self, label: np.ndarray, angle: float) -> np.ndarray:
        """Turns (x, y) as the image turns, which is right for vectors whose x points right and y down."""
        cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        return cv2.transform(label, np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]))

    def resampled(self, label: np.ndarray) -> np.ndarray:
        """Brings vectors to unit length, in float32; zero vectors stay zero."""
        vectors = label.astype(np.float32, copy=False)
        squared = cv2.transform(cv2.multiply(vectors, vectors), np.ones((1, 3), np.float32))
        norm = cv2.sqrt(squared) + _NORM_EPS
        return cv2.divide(vectors, cv2.merge((norm, norm, norm)))

    def mark_ignored(self, label: np.ndarray) -> np.ndarray:
        return ignore_zeros(label)

    def labelled(self, label: np.ndarray) -> np.ndarray:
        return super().labelled(label) & (label != 0).any(axis=-1)

    def draw_random(self, rng: np.random.Generator, shape: tuple[int, ...], num_classes: int) -> np.ndarray:
        vectors = rng.standard_normal((*shape, 3), np.float32)
        return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)

    def activate(self, logits: jax.Array) -> jax.Array:
        norm = jnp.sqrt((logits * logits).sum(axis=-1, keepdims=True))
        return 255 * (logits / jnp.maximum(norm, 1e-12) + 1) / 2

    def best_constant(self, labels: Iterable[np.ndarray]) -> np.ndarray:
        """Returns the direction of the mean of the labelled vectors, float32 `[1, 1, 3]`."""
        mean = np.asarray(mean_value(self, labels), np.float32).reshape(1, 1, 1, 3)
        return np.asarray(self.activate(jnp.asarray(mean)))[0]

    def paint(
        self, array: np.ndarray, *, is_label: bool, low: float | None = None, high: float | None = None
    ) -> np.ndarray:
        """Draws (v + 1) / 2 as RGB; pixels without a label are black."""
        if not is_label:
            return np.clip(array, 0, 255).astype(np.uint8)
        known = (array != IGNORE).any(axis=-1, keepdims=True) & (array != 0).any(axis=-1, keepdims=True)
        norm = np.maximum(np.sqrt((array.astype(np.float64) ** 2).sum(axis=-1, keepdims=True)), 1e-12)
        return np.where(known, 255 * (array / norm + 1) / 2, 0).astype(np.uint8)

    def summarise(self, values: np.ndarray) -> str:
        return "mean " + ", ".join(f"{axis} {v:+.2f}" for axis, v in zip("xyz", values.mean(axis=0), strict=True))

    def reader(self, files: LabelFiles) -> Reader:
        return _float_vectors if files.suffix == ".npy" else _coded_vectors

    def stored_form(self, files: LabelFiles) -> StoredForm:
        return "float32" if files.suffix == ".npy" else "colours"

    def unlabelled(self, files: LabelFiles, size: Size) -> Any:
        empty = np.zeros((*size, 3), np.float32)
        return empty if files.suffix == ".npy" else pictures.encode_png(empty.astype(np.uint8))


@cache
def _code_values(dtype: str) -> np.ndarray:
    """The canonical values of the codes 0..255 of a stored map, `[256]`."""
    number = np.dtype(dtype).type
    return np.arange(256, dtype=np.uint8).astype(dtype) * number(2) / number(255) - 1


def _float_vectors(data: bytes) -> tuple[np.ndarray, Size]:
    vectors, size = readers.floats(readers.npy, 3, -1.01, 1.01)(data)
    readers.check_unit_length(vectors)
    return vectors, size


def _coded_vectors(data: bytes) -> tuple[bytes, Size]:
    coded = pictures.decode(data, 3)
    vectors = coded * np.float32(2 / 255) - 1
    readers.check_unit_length(vectors)
    length = np.linalg.norm(vectors, axis=2)
    coded[(length < _NO_VECTOR[0]) | (length > _NO_VECTOR[1])] = 0
    return pictures.encode_png(coded), (coded.shape[0], coded.shape[1])
