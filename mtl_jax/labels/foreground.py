"""Foreground or background: saliency, edges."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.codecs import pictures
from mtl_jax.labels import colors, readers
from mtl_jax.labels.kind import IGNORE, Conventions, LabelKind, mean_value, percent, plane, resize
from mtl_jax.labels.readers import LabelFiles, Reader, Size

UNLABELLED = 128  # grey level of pixels without a label in drawings of binary labels
TINT = (255, 170, 0)  # colour of a foreground region
LINE = (255, 0, 80)  # colour of a foreground line
_EPS = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Foreground(LabelKind):
    """A probability of being foreground: labels from 0 to 1, float32 `[H, W, 1]`, with 255 where there is none.

    Predictions are maps in 0..255, `[B, H, W, 1]`: 255 times the sigmoid of the logit.

    Attributes:
        binary: Labels above 0.5 become 1, the others 0; otherwise labels keep their values.
        lines: The foreground consists of lines one pixel wide, such as edges, and is drawn as such.
    """

    binary: bool = True
    lines: bool = False

    def meaning(self) -> str:
        return "probability p as 255 p"

    def num_logits(self, num_classes: int) -> int:
        return 1

    def decode(self, stored: np.ndarray, conventions: Conventions) -> np.ndarray:
        if stored.dtype == np.uint8:  # one pass over the map instead of one for each operation
            return cv2.LUT(stored, _code_values(self)).reshape(stored.shape)
        return self._canonical(stored.astype(np.float32))

    def _canonical(self, values: np.ndarray) -> np.ndarray:
        return (values > 0.5).astype(np.float32) if self.binary else values

    def draw_random(self, rng: np.random.Generator, shape: tuple[int, ...], num_classes: int) -> np.ndarray:
        return (rng.random((*shape, 1), np.float32) < 0.1).astype(np.float32)

    def activate(self, logits: jax.Array) -> jax.Array:
        return 255 * jax.nn.sigmoid(logits)

    def best_constant(self, labels: Iterable[np.ndarray]) -> np.ndarray:
        """Returns the mean of the labels, float32 `[1, 1, 1]`."""
        p = np.asarray(mean_value(self, labels), np.float32).reshape(1, 1, 1, -1)
        p = np.clip(p, _EPS, 1 - _EPS)  # 0 and 1 have no logit: nothing, or everything, is foreground
        return np.asarray(self.activate(jnp.asarray(np.log(p / (1 - p)))))[0]

    def paint(
        self, array: np.ndarray, *, is_label: bool, low: float | None = None, high: float | None = None
    ) -> np.ndarray:
        """Draws predictions as grey levels, labels white where at least 0.5 and grey where there is none."""
        values = plane(array)
        if is_label:
            grey = np.where(values == IGNORE, UNLABELLED, np.where(values >= 0.5, 255, 0))
        else:
            grey = np.clip(values, 0, 255)
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)

    def overlay(self, image: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Draws lines in colour over a pale image, regions in colour with a line around them over a dark image."""
        inside = label[..., 0] >= 0.5
        if self.lines:
            return np.where(inside[..., None], np.array(LINE, np.uint8), colors.blend(image, (255, 255, 255)))
        drawn = np.where(inside[..., None], colors.blend(image, TINT), colors.blend(image, (0, 0, 0)))
        drawn[colors.boundary(inside)] = colors.BOUNDARY
        return drawn

    def shrink(self, label: np.ndarray, height: int, width: int) -> np.ndarray:
        small = super().shrink(label, height, width)
        if height >= label.shape[0]:
            return small
        # A line one pixel wide would become dots if only every n-th pixel were looked at.
        share = resize(((label != IGNORE) & (label >= 0.5)).astype(np.float32), height, width, cv2.INTER_AREA)
        return np.where(self.labelled(small)[..., None], share >= 0.25, IGNORE)

    def summarise(self, values: np.ndarray) -> str:
        return f"{percent((values >= 0.5).mean())} positive"

    def reader(self, files: LabelFiles) -> Reader:
        return readers.probabilities(readers.npy) if files.suffix == ".npy" else _grey


def _grey(data: bytes) -> tuple[bytes, Size]:
    if pictures.has_palette(data):
        raise ValueError("its values are indices into a palette, expected grey levels, 255 for the foreground")
    if pictures.grey_step(data) == 1 and pictures.decode(data, 1).max() == 1:
        raise ValueError("its values are 0 and 1, expected grey levels, 255 for the foreground")
    return readers.grey(data)


@cache
def _code_values(kind: Foreground) -> np.ndarray:
    """The canonical values of the codes 0..255 of a stored map, float32 `[256]`."""
    return kind._canonical(np.arange(256, dtype=np.float32) / np.float32(255))
