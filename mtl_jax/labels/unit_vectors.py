"""Unit vectors: surface normals."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.codecs import label_pictures, pictures
from mtl_jax.labels import axes, readers
from mtl_jax.labels.error_maps import ErrorMap, ErrorSizes, mean_of
from mtl_jax.labels.keys import Ball, Key, Note, Style
from mtl_jax.labels.kind import Conventions, LabelKind, StoredForm, ignore_zeros, mean_value
from mtl_jax.labels.label_files import LabelFiles
from mtl_jax.labels.readers import Reader, Size

_NORM_EPS = np.finfo(np.float32).eps  # shortens the faint vectors that cubic resampling leaves around invalid regions
_PUBLISHED = "opencv"  # axes that flips and rotations of the published code assume
_FEWEST_FACING = 1 / 3  # share of vectors that point to the camera; nearly all do, as the camera sees the surfaces
_COLORS = ("red", "green", "blue")  # of x, y and z in drawings
_BALL = 84  # height and width of the ball that explains the colours, in pixels
_NO_VECTOR = (0.5, 1.5)  # coded vectors of a length outside are no unit vectors: pixels without a label


@dataclass(frozen=True)
class UnitVectors(LabelKind):
    """A direction for every pixel: labels are float32 `[H, W, 3]`, zero or 255 without a label.

    The conventions of the data set say which way x, y and z point, see `mtl_jax.labels.axes`.

    Predictions are unit vectors v as 255 (v + 1) / 2, `[B, H, W, 3]`.
    """

    channels = 3
    void = 0
    label_interpolation = "cubic"
    fit_interpolation = "cubic"
    prediction_range = (0, 255)
    folder_options = ("axes",)

    def meaning(self, conventions: Conventions) -> str:
        return f"unit vector v as 255 (v + 1) / 2{_pointing(conventions)}"

    def num_logits(self, num_classes: int) -> int:
        return 3

    def decode(self, stored: np.ndarray, conventions: Conventions) -> np.ndarray:
        if stored.dtype != np.uint8:
            return stored.astype(conventions.normals_dtype)
        vectors = cv2.LUT(stored, _code_values(conventions.normals_dtype))
        if conventions.normals_void:
            vectors = cv2.copyTo(vectors, cv2.bitwise_not(cv2.inRange(stored, (0, 0, 0), (0, 0, 0))))
        return vectors.reshape(stored.shape)

    def flip(self, label: np.ndarray, conventions: Conventions) -> np.ndarray:
        label[..., axes.horizontal(conventions.axes or _PUBLISHED)] *= -1
        return label

    def rotate(self, label: np.ndarray, angle: float, conventions: Conventions) -> np.ndarray:
        """Turns the vectors as the image turns."""
        return cv2.transform(label, axes.rotation(conventions.axes or _PUBLISHED, angle))

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
        return 255 * (self.soften(logits) + 1) / 2

    def soften(self, logits: jax.Array) -> jax.Array:
        """Returns vectors of unit length."""
        norm = jnp.sqrt((logits * logits).sum(axis=-1, keepdims=True))
        return logits / jnp.maximum(norm, 1e-12)

    def decide(self, values: np.ndarray) -> np.ndarray:
        """Returns vectors of unit length, float32 `[H, W, 3]`: resizing and averaging shorten vectors."""
        return self.resampled(values)

    def as_label(self, decided: np.ndarray, conventions: Conventions) -> np.ndarray:
        """Returns the vectors that point to the camera, where it is known which way that is.

        No visible surface faces away from the camera, so the other pixels have no label.
        """
        if not conventions.axes:
            return decided
        return np.where(_forward(decided, conventions.axes)[..., None] < 0, decided, np.float32(0))

    def as_prediction(self, decided: np.ndarray) -> np.ndarray:
        return 255 * (decided + 1) / 2

    def map_meaning(self, conventions: Conventions) -> str:
        return f"unit vector{_pointing(conventions)}"

    def map_files(self, decided: np.ndarray, num_classes: int) -> dict[str, bytes]:
        return {".png": pictures.encode_png(np.rint(255 * (decided + 1) / 2).clip(0, 255).astype(np.uint8))}

    def describe_map_files(self, conventions: Conventions) -> dict[str, str]:
        return {".png": f"RGB PNG: {self.meaning(conventions)}"}

    def best_constant(self, labels: Iterable[np.ndarray]) -> np.ndarray:
        """Returns the direction of the mean of the labelled vectors, float32 `[1, 1, 3]`."""
        mean = np.asarray(mean_value(self, labels), np.float32).reshape(1, 1, 1, 3)
        return np.asarray(self.activate(jnp.asarray(mean)))[0]

    def paint(
        self, array: np.ndarray, *, is_label: bool, low: float | None = None, high: float | None = None
    ) -> np.ndarray:
        """Draws (v + 1) / 2 as RGB."""
        coded = 255 * (_unit(array) + 1) / 2 if is_label else np.nan_to_num(array)
        return np.clip(np.round(coded), 0, 255).astype(np.uint8)

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
        """Returns a ball with the colours of the directions, or a text where nobody says which way the axes point."""
        if not conventions.axes:
            return Note("x, y, z as red, green, blue, from dark (-1) to bright (+1); which way they point is not known")
        meanings = zip(_COLORS, axes.describe(conventions.axes).split(", "), strict=True)
        lines = (*(f"{color}: {axis}" for color, axis in meanings), "light +1, dark -1")
        return Ball(self._ball(conventions.axes), "direction that a surface faces", lines)

    def _ball(self, names: str) -> np.ndarray:
        """Draws the front of a ball in the colours of its normals, RGB uint8 `[S, S, 3]`.

        Args:
            names: Axes of the normals, see `mtl_jax.labels.axes`.
        """
        x, y = np.meshgrid(*[(np.arange(_BALL) + 0.5) / _BALL * 2.06 - 1.03] * 2)
        inside = x**2 + y**2 <= 1
        forward = -np.sqrt(np.maximum(1 - x**2 - y**2, 0))  # towards the viewer is back
        vectors = np.stack([x, y, forward], axis=-1) @ axes.to_opencv(names)
        return np.where(inside[..., None], self.paint(vectors, is_label=True), 255).astype(np.uint8)

    def errors(self, prediction: np.ndarray, label: np.ndarray) -> ErrorMap:
        """Returns the angles between predicted and true vectors in degrees."""
        cosine = (_unit(prediction / np.float32(127.5) - 1) * _unit(label)).sum(axis=-1)
        angle = np.rad2deg(np.arccos(np.clip(cosine, -1, 1))).astype(np.float32)
        angle[~self.labelled(label)] = np.nan
        return ErrorSizes(angle, f"mean angle {mean_of(angle):.1f}°", "°", "angle")

    def summarise(self, values: np.ndarray, names: Sequence[str] = ()) -> str:
        return "mean " + ", ".join(f"{axis} {v:+.2f}" for axis, v in zip("xyz", values.mean(axis=0), strict=True))

    def reader(self, files: LabelFiles) -> Reader:
        return partial(_float_vectors if files.suffix == ".npy" else _coded_vectors, files.axes)

    def written_files(self, class_names: Sequence[str], conventions: Conventions) -> LabelFiles:
        return LabelFiles(axes=conventions.axes)

    def encode_label(self, label: np.ndarray) -> bytes:
        """Returns a PNG with vectors v as 255 (v + 1) / 2, at most 0.4° off; black where there is no label."""
        coded = np.rint(255 * (label.astype(np.float64) + 1) / 2).clip(0, 255)
        coded[~self.labelled(label)] = 0
        return pictures.encode_png(coded.astype(np.uint8))

    def stored_form(self, files: LabelFiles) -> StoredForm:
        return "float32" if files.suffix == ".npy" else "colours"

    def unlabelled(self, files: LabelFiles, size: Size) -> Any:
        empty = np.zeros((*size, 3), np.float32)
        return empty if files.suffix == ".npy" else pictures.encode_png(empty.astype(np.uint8))


def _pointing(conventions: Conventions) -> str:
    return f"; {axes.describe(conventions.axes)}" if conventions.axes else ""


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Returns vectors `[H, W, 3]` at unit length, float64; zero vectors stay zero."""
    wide = vectors.astype(np.float64)
    return wide / np.maximum(np.linalg.norm(wide, axis=-1, keepdims=True), 1e-12)


@cache
def _code_values(dtype: str) -> np.ndarray:
    """The canonical values of the codes 0..255 of a stored map, `[256]`."""
    number = np.dtype(dtype).type
    return np.arange(256, dtype=np.uint8).astype(dtype) * number(2) / number(255) - 1


def _float_vectors(declared: str, data: bytes) -> tuple[np.ndarray, Size]:
    vectors, size = readers.floats(readers.npy, 3, -1.01, 1.01, void=0)(data)
    readers.check_unit_length(vectors)
    _check_axes(vectors[(vectors != 0).any(axis=2)], declared)
    return vectors, size


def _coded_vectors(declared: str, data: bytes) -> tuple[bytes, Size]:
    coded = label_pictures.colors(data)
    vectors = coded * np.float32(2 / 255) - 1
    readers.check_unit_length(vectors)
    length = np.linalg.norm(vectors, axis=2)
    unlabelled = (length < _NO_VECTOR[0]) | (length > _NO_VECTOR[1])
    _check_axes(vectors[~unlabelled], declared)
    coded[unlabelled] = 0
    return pictures.encode_png(coded), (coded.shape[0], coded.shape[1])


def _forward(vectors: np.ndarray, names: str) -> np.ndarray:
    """Returns the components `[...]` of vectors `[..., 3]` that point away from the camera, in axes of these names."""
    forward: np.ndarray = vectors @ axes.to_opencv(names).T[:, 2]
    return forward


def _check_axes(vectors: np.ndarray, declared: str) -> None:
    """Checks that vectors `[N, 3]` point to the camera in the declared axes.

    Raises:
        ValueError: Most of the vectors point away from the camera, which no visible surface does.
    """
    assumed = declared or _PUBLISHED
    forward = _forward(vectors, assumed)
    if forward.size and (share := float(np.mean(forward < 0))) < _FEWEST_FACING:
        raise ValueError(
            f"only {share:.0%} of the normals point to the camera if their axes are {assumed!r} "
            f"({axes.describe(assumed)}). Say which way the axes point: axes = {' or '.join(map(repr, axes.NAMES))}, "
            "or three letters"
        )
