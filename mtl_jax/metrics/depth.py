"""The metric of depth maps."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mtl_jax.metrics.core import Metric, Result, Stats, check_shapes, image_sum, namespace, ratio, total
from mtl_jax.tasks import IGNORE

PROTOCOLS = ("image", "pixel")
FLOOR = 1e-9  # metres; the least prediction, so that its logarithm exists
_ERRORS = ("squared_error", "squared_log_error", "relative_error", "squared_relative_error")
_COUNTS = ("pixels", "delta1", "delta2", "delta3")


@dataclass(frozen=True)
class Depth(Metric):
    """Depth errors over the valid pixels, whose label is neither 255 nor 0.

    For a prediction p and a label g in metres: `rmse` = sqrt(mean (p - g)^2), `log_rmse` is the same for the logarithms
    of p and g, `abs_rel` = mean |p - g| / g, `sq_rel` = mean (p - g)^2 / g, and `delta<k>` is the share of the pixels
    with max(p/g, g/p) < 1.25^k.

    Attributes:
        protocol: "image" computes the scores of every image and reports their mean over the images, or their median for
            log_rmse; images without a valid pixel do not count. "pixel" computes the means over all pixels of the data
            set.
    """

    protocol: str = "image"

    higher_is_better: ClassVar[Mapping[str, bool]] = {
        **dict.fromkeys(("rmse", "log_rmse", "abs_rel", "sq_rel"), False),
        **dict.fromkeys(("delta1", "delta2", "delta3"), True),
    }

    def __post_init__(self):
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"unknown depth protocol {self.protocol!r}; the protocols are {', '.join(PROTOCOLS)}")

    def empty(self) -> Stats:
        counts = {name: np.zeros(0, np.int32) for name in _COUNTS}
        return {**counts, **{name: np.zeros(0) for name in _ERRORS}}

    def update(self, prediction: Any, label: Any) -> Stats:
        """Sums the errors over the valid pixels of each image.

        Args:
            prediction: Predicted depth in metres, `[B, H, W, 1]`.
            label: True depth in metres, `[B, H, W, 1]`.
        """
        check_shapes(prediction, label, 1)
        xp, dtype = namespace(prediction)
        p, g = prediction.astype(dtype), xp.asarray(label).astype(dtype)
        mask = (g != IGNORE) & (g != 0)
        g = xp.where(mask, g, xp.ones_like(g))
        p = xp.where(mask, xp.maximum(p, FLOOR), g)
        error, log_error = p - g, xp.log(p) - xp.log(g)
        worst = xp.maximum(p / g, g / p)
        values = {
            "squared_error": error**2,
            "squared_log_error": log_error**2,
            "relative_error": abs(error) / g,
            "squared_relative_error": error**2 / g,
            **{f"delta{k}": worst < 1.25**k for k in (1, 2, 3)},
        }
        return {"pixels": image_sum(mask, mask), **{name: image_sum(value, mask) for name, value in values.items()}}

    def compute(self, stats: Stats) -> Result:
        if self.protocol == "pixel":  # the data set is treated as one large image
            stats = {name: total(values)[None] for name, values in stats.items()}
        counted = stats["pixels"] > 0
        means = {name: values[counted] / stats["pixels"][counted] for name, values in stats.items()}
        return {
            "rmse": _mean(np.sqrt(means["squared_error"])),
            "log_rmse": _median(np.sqrt(means["squared_log_error"])),
            "abs_rel": _mean(means["relative_error"]),
            "sq_rel": _mean(means["squared_relative_error"]),
            **{f"delta{k}": _mean(means[f"delta{k}"]) for k in (1, 2, 3)},
        }


def _mean(values: np.ndarray) -> float:
    return float(ratio(total(values), len(values)))


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else math.nan
