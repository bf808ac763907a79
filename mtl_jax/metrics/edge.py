"""The metric of edge maps."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mtl_jax.metrics.core import Metric, Result, Stats, check_shapes, image_sum, namespace, ratio, total
from mtl_jax.tasks import IGNORE

EPS = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Edge(Metric):
    """Balanced cross-entropy of edge probabilities, averaged over the labelled pixels of the data set.

    `loss` = mean of -w y log(p) - (1 - w)(1 - y) log(1 - p) with y = label >= 0.5 and p = prediction / 255. The
    prediction is the output of a sigmoid, so no sigmoid is applied here. p is clipped to [eps, 1 - eps] with the eps of
    float32 (1.2e-7), because predictions saturate at 0 and 255. Pixels with the label 255 are ignored.

    Attributes:
        pos_weight: The weight w of edge pixels.
    """

    pos_weight: float = 0.95

    higher_is_better: ClassVar[Mapping[str, bool]] = {"loss": False}

    def empty(self) -> Stats:
        return {"pixels": np.zeros(0, np.int32), "loss": np.zeros(0)}

    def update(self, prediction: Any, label: Any) -> Stats:
        """Computes the number of labelled pixels and the sum of the loss of each image, both `[B]`.

        Args:
            prediction: Predicted edges in 0..255, `[B, H, W, 1]`.
            label: True edges in 0..1, or 255, `[B, H, W, 1]`.
        """
        check_shapes(prediction, label, 1)
        xp, dtype = namespace(prediction)
        label = xp.asarray(label)
        mask, positive = label != IGNORE, label >= 0.5
        p = xp.clip(prediction.astype(dtype) / 255, EPS, 1 - EPS)
        loss = xp.where(positive, -self.pos_weight * xp.log(p), -(1 - self.pos_weight) * xp.log1p(-p))
        return {"pixels": image_sum(mask, mask), "loss": image_sum(loss, mask)}

    def compute(self, stats: Stats) -> Result:
        return {"loss": float(ratio(total(stats["loss"]), stats["pixels"].sum()))}
