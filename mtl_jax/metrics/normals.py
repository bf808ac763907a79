"""The metric of surface normals."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mtl_jax.metrics.core import Metric, Result, Stats, check_shapes, counts, image_sum, namespace, ratio, total
from mtl_jax.tasks import IGNORE

LIMITS = (11.25, 22.5, 30.0)
BINS_PER_DEGREE = 1000


@dataclass(frozen=True)
class Normals(Metric):
    """Angle in degrees between predicted and true normals, over all labelled pixels of the data set.

    The scores are `mean`, `median`, `rmse` (root of the mean squared angle) and the percentages of pixels below 11.25,
    22.5 and 30 degrees. A pixel is labelled unless its vector is 0 in every channel or 255 in every channel. The median
    is computed from a histogram with bins of 0.001 degrees, so its error is at most half a bin.
    """

    summed: ClassVar[tuple[str, ...]] = ("histogram",)
    from_summed: ClassVar[tuple[str, ...]] = ("median",)
    higher_is_better: ClassVar[Mapping[str, bool]] = {
        **dict.fromkeys(("mean", "median", "rmse"), False),
        **{f"{limit:g}": True for limit in LIMITS},
    }

    def empty(self) -> Stats:
        return {
            "pixels": np.zeros(0, np.int32),
            "angle": np.zeros(0),
            "squared_angle": np.zeros(0),
            "below": np.zeros((0, len(LIMITS)), np.int32),
            "histogram": np.zeros((0, 180 * BINS_PER_DEGREE), np.int32),
        }

    def update(self, prediction: Any, label: Any) -> Stats:
        """Computes sums, counts and a histogram of the angles of each image.

        Args:
            prediction: Predicted vectors, mapped from -1..1 to 0..255, `[B, H, W, 3]`.
            label: True vectors, `[B, H, W, 3]`.
        """
        check_shapes(prediction, label, 3)
        xp, dtype = namespace(prediction)
        label = xp.asarray(label)
        mask = (label != IGNORE).any(axis=-1) & (label != 0).any(axis=-1)

        def unit(v):
            return v / xp.maximum(xp.sqrt((v * v).sum(axis=-1, keepdims=True)), 1e-12)

        def norm(v):
            return xp.sqrt((v * v).sum(axis=-1))

        a, b = unit(prediction.astype(dtype) * 2 / 255 - 1), unit(label.astype(dtype))
        # This formula is accurate for small angles; in float32, arccos(a . b) cannot resolve less than 0.02 degrees.
        angle = xp.rad2deg(2 * xp.arctan2(norm(a - b), norm(a + b)))
        bins = xp.clip((angle * BINS_PER_DEGREE).astype(np.int32), 0, 180 * BINS_PER_DEGREE - 1)
        return {
            "pixels": image_sum(mask, mask),
            "angle": image_sum(angle, mask),
            "squared_angle": image_sum(angle * angle, mask),
            "below": xp.stack([image_sum(angle < limit, mask) for limit in LIMITS], axis=1),
            "histogram": counts(bins, mask, 180 * BINS_PER_DEGREE),
        }

    def compute(self, stats: Stats) -> Result:
        pixels = stats["pixels"].sum()
        below = 100 * ratio(stats["below"].sum(axis=0), pixels)
        return {
            "mean": float(ratio(total(stats["angle"]), pixels)),
            "median": _median(stats["histogram"]),
            "rmse": float(np.sqrt(ratio(total(stats["squared_angle"]), pixels))),
            **{f"{limit:g}": float(value) for limit, value in zip(LIMITS, below, strict=True)},
        }


def _median(histogram: np.ndarray) -> float:
    """Computes the mean of the centres of the bins with the two middle values, in degrees."""
    cumulative = np.cumsum(histogram)
    n = int(cumulative[-1])
    if n == 0:
        return math.nan
    low, high = np.searchsorted(cumulative, [(n - 1) // 2, n // 2], side="right")
    return float((low + high + 1) / 2 / BINS_PER_DEGREE)
