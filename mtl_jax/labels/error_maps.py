"""Error maps: where a prediction differs from its label, and by how much."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mtl_jax.labels import colors
from mtl_jax.labels.keys import Bar, Color, Key, Swatches

_CLIPPED = 95  # percentile of the errors with the brightest colour, so that a few great errors do not hide the others
_LEAST = 1e-6  # of the brightest colour's value, for predictions without an error


@dataclass(frozen=True)
class ErrorMap(ABC):
    """The errors of a prediction.

    Attributes:
        values: Error of every pixel, float32 `[H, W]`; NaN where there is no label.
        text: The errors in a few words, for a caption.
    """

    values: np.ndarray
    text: str

    @abstractmethod
    def paint(self, values: np.ndarray) -> np.ndarray:
        """Draws such values at any size, `[H, W]` without NaN, as RGB uint8 `[H, W, 3]`."""

    @abstractmethod
    def key(self) -> Key:
        """Returns what the colours mean."""


@dataclass(frozen=True)
class WrongPixels(ErrorMap):
    """Errors of 0 (right) and 1 (wrong)."""

    RIGHT: ClassVar[Color] = (225, 232, 228)
    WRONG: ClassVar[Color] = (200, 30, 45)

    def paint(self, values: np.ndarray) -> np.ndarray:
        return np.array([self.RIGHT, self.WRONG], np.uint8)[(values > 0.5).astype(int)]

    def key(self) -> Key:
        return Swatches(((self.WRONG, "wrong class"), (self.RIGHT, "right class")))


@dataclass(frozen=True)
class ErrorSizes(ErrorMap):
    """Errors from 0 upwards.

    Attributes:
        unit: Unit of the errors.
        title: What the errors are.
        limit: Value of the brightest colour. None means a round number above the 95th percentile of the errors.
    """

    unit: str = ""
    title: str = "absolute error"
    limit: float | None = None

    @property
    def high(self) -> float:
        """Value of the brightest colour."""
        if self.limit is not None:
            return self.limit
        known = self.values[np.isfinite(self.values)]
        return _rounded_up(float(np.percentile(known, _CLIPPED))) if known.size else 1.0

    def paint(self, values: np.ndarray) -> np.ndarray:
        return colors.inferno(np.clip(values / self.high, 0, 1))

    def key(self) -> Key:
        scale = colors.inferno(np.linspace(0, 1, 256)[None])[0]
        clipped = bool(np.nanmax(self.values, initial=0) > self.high)
        return Bar(scale, 0.0, self.high, self.unit, self.title, clipped)


def _rounded_up(value: float) -> float:
    """Returns the least of 1, 2, 4, 5 and 10 times a power of ten that is not below a value."""
    power = 10.0 ** math.floor(math.log10(max(value, _LEAST)))
    return next(factor * power for factor in (1, 2, 4, 5, 10) if factor * power >= min(value, 10 * power))


def mean_of(values: np.ndarray) -> float:
    """Returns the mean of the errors `[H, W]` that are not NaN, 0 where there is none."""
    known = values[np.isfinite(values)]
    return float(known.mean(dtype=np.float64)) if known.size else 0.0
