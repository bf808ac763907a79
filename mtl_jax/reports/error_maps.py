"""Maps of the errors of predictions: where a prediction differs from its label, and by how much."""

from dataclasses import dataclass
from functools import singledispatch

import cv2
import numpy as np

from mtl_jax.labels import ClassIds, Foreground, LabelKind, RealValues, UnitVectors
from mtl_jax.labels.kind import plane

_UNLABELLED = 150  # grey level of pixels without a label
_UPPER = 99  # percentile of the errors that has the brightest colour, where errors have no natural limit


@dataclass(frozen=True)
class ErrorMap:
    """The errors of one image's prediction.

    Attributes:
        values: Errors, float `[H, W]`, NaN where there is no label.
        high: Error of the brightest colour; the darkest stands for 0.
        meaning: What the colours mean.
    """

    values: np.ndarray
    high: float
    meaning: str

    def picture(self) -> np.ndarray:
        """Draws the errors from dark (none) to bright, grey where there is no label, RGB uint8 `[H, W, 3]`."""
        known = np.isfinite(self.values)
        share = np.clip(np.where(known, self.values, 0) / max(self.high, 1e-9), 0, 1)
        drawn = cv2.applyColorMap(np.round(255 * share).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
        return np.where(known[..., None], drawn, _UNLABELLED).astype(np.uint8)


@singledispatch
def error_map(kind: LabelKind, prediction: np.ndarray, label: np.ndarray) -> ErrorMap | None:
    """Returns the errors of a prediction, or None for a kind of label that says nothing about errors.

    Kinds from outside of the package add theirs by `error_map.register`.

    Args:
        kind: Kind of the task's labels.
        prediction: One image's prediction, quantised, `[H, W]` or `[H, W, C]`.
        label: The label at the same size, `[H, W, C]`.
    """
    return None


@error_map.register
def _wrong_classes(kind: ClassIds, prediction: np.ndarray, label: np.ndarray) -> ErrorMap:
    wrong = (plane(prediction) != plane(label)).astype(np.float32)
    return ErrorMap(_masked(kind, wrong, label), 1, "bright: wrong class")


@error_map.register
def _wrong_probability(kind: Foreground, prediction: np.ndarray, label: np.ndarray) -> ErrorMap:
    error = np.abs(plane(prediction).astype(np.float32) / 255 - plane(label))
    return ErrorMap(_masked(kind, error, label), 1, "error of the probability, 0 (dark) to 1 (bright)")


@error_map.register
def _wrong_value(kind: RealValues, prediction: np.ndarray, label: np.ndarray) -> ErrorMap:
    error = _masked(kind, np.abs(plane(prediction).astype(np.float32) - plane(label)), label)
    high = _upper(error)
    return ErrorMap(
        error, high, f"absolute error, 0 (dark) to {high:.2g} {kind.unit} or more (bright)".replace("  ", " ")
    )


@error_map.register
def _wrong_direction(kind: UnitVectors, prediction: np.ndarray, label: np.ndarray) -> ErrorMap:
    vectors = [prediction.astype(np.float32) * (2 / 255) - 1, label.astype(np.float32)]
    a, b = (v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-9) for v in vectors)
    error = _masked(kind, np.degrees(np.arccos(np.clip((a * b).sum(axis=-1), -1, 1))), label)
    high = _upper(error)
    return ErrorMap(error, high, f"angle to the label, 0° (dark) to {high:.0f}° or more (bright)")


def _masked(kind: LabelKind, error: np.ndarray, label: np.ndarray) -> np.ndarray:
    return np.where(kind.labelled(label), error, np.nan)


def _upper(error: np.ndarray) -> float:
    known = error[np.isfinite(error)]
    return float(np.percentile(known, _UPPER)) if known.size else 1.0
