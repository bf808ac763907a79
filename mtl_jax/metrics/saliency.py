"""The metric of saliency maps."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mtl_jax.metrics.core import Metric, Result, Stats, check_shapes, image_sum, namespace, ratio, total
from mtl_jax.tasks import IGNORE

THRESHOLDS = tuple(float(t) for t in np.linspace(0.2, 0.9, 15))


@dataclass(frozen=True)
class Saliency(Metric):
    """Overlap of the thresholded prediction with the true foreground, averaged over the images with a label.

    At each threshold t the predicted foreground is prediction / 255 > t. Each image has a Jaccard index (1 if the
    prediction and the label are both empty), a precision and a recall (0 where undefined). `mIoU` is the largest mean
    Jaccard index of all thresholds, and `maxF` the largest F = 2PR / (P + R) of the mean precision P and the mean
    recall R. Pixels with the label 255 are ignored, and so are images with no other label. Every label except 0 is
    foreground.

    Attributes:
        thresholds: Thresholds as fractions of 255.
    """

    thresholds: tuple[float, ...] = THRESHOLDS

    higher_is_better: ClassVar[Mapping[str, bool]] = {"mIoU": True, "maxF": True}

    def empty(self) -> Stats:
        per_threshold = np.zeros((0, len(self.thresholds)), np.int32)
        per_image = np.zeros(0, np.int32)
        return {
            "pixels": per_image,
            "intersection": per_threshold,
            "predicted": per_threshold,
            "labelled": per_image,
        }

    def update(self, prediction: Any, label: Any) -> Stats:
        """Counts labelled pixels of each image, `[B]`, and of each image at T thresholds, `[B, T]`.

        Args:
            prediction: Predicted saliency in 0..255, `[B, H, W, 1]`.
            label: True foreground, `[B, H, W, 1]`.
        """
        check_shapes(prediction, label, 1)
        xp, dtype = namespace(prediction)
        prediction, label = prediction.astype(dtype), xp.asarray(label)
        mask, foreground = label != IGNORE, label != 0
        # Limits in grey levels avoid the rounding error of 255 * t: in no precision is 153 above 0.6.
        limits = [round(255 * t, 6) for t in self.thresholds]
        above = [prediction > limit for limit in limits]
        return {
            "pixels": image_sum(mask, mask),
            "intersection": xp.stack([image_sum(a & foreground, mask) for a in above], axis=1),
            "predicted": xp.stack([image_sum(a, mask) for a in above], axis=1),
            "labelled": image_sum(foreground, mask),
        }

    def compute(self, stats: Stats) -> Result:
        counted = stats["pixels"] > 0
        intersection, predicted = stats["intersection"][counted], stats["predicted"][counted]
        labelled = stats["labelled"][counted, None]
        images = len(intersection)
        jaccard = ratio(total(ratio(intersection, predicted + labelled - intersection, empty=1.0)), images)
        precision = ratio(total(ratio(intersection, predicted, empty=0.0)), images)
        recall = ratio(total(ratio(intersection, labelled, empty=0.0)), images)
        f = ratio(2 * precision * recall, precision + recall, empty=0.0)
        return {
            "mIoU": float(jaccard.max()),
            "maxF": float(f.max()),
            "thresholds": list(self.thresholds),
            "IoU_per_threshold": jaccard.tolist(),
            "precision_per_threshold": precision.tolist(),
            "recall_per_threshold": recall.tolist(),
            "F_per_threshold": f.tolist(),
        }
