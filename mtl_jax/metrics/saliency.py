"""The metric of saliency maps."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mtl_jax.metrics.core import Metric, Result, Stats, check_shapes, image_sum, namespace, ratio, total
from mtl_jax.tasks import IGNORE

THRESHOLDS = tuple(float(t) for t in np.linspace(0.2, 0.9, 15))
# InvPT's code applies a second sigmoid to probabilities, and thresholds from 0.05 to 0.95 in steps of 0.05 to the
# result, which lies between 0.5 and 0.731. On probabilities these are 0 and the logits of 0.55, 0.6, 0.65 and 0.7.
PIXEL_THRESHOLDS = (0.0, *(math.log(t / (1 - t)) for t in (0.55, 0.6, 0.65, 0.7)))
_BETA_SQUARED = 0.3


@dataclass(frozen=True)
class Saliency(Metric):
    """Overlap of the thresholded prediction with the true foreground, averaged over the images with a label.

    At each threshold t the predicted foreground is prediction / 255 > t. Each image has a Jaccard index (1 if the
    prediction and the label are both empty), a precision and a recall (0 where undefined). `mIoU` is the largest mean
    Jaccard index of all thresholds, and `maxF` the largest F = 2PR / (P + R) of the mean precision P and the mean
    recall R. Pixels with the label 255 are ignored, and so are images with no other label. Every label except 0 is
    foreground.

    `maxF_pixel` is the score of InvPT (arXiv 2203.07997) and of the models that it compares with: the largest
    F = (1 + 0.3) PR / (0.3 P + R) of precision and recall over the pixels of all images, where the prediction is at
    least one of `PIXEL_THRESHOLDS`.

    Attributes:
        thresholds: Thresholds as fractions of 255.
    """

    thresholds: tuple[float, ...] = THRESHOLDS

    higher_is_better: ClassVar[Mapping[str, bool]] = dict.fromkeys(("mIoU", "maxF", "maxF_pixel"), True)

    def empty(self) -> Stats:
        per_threshold = np.zeros((0, len(self.thresholds)), np.int32)
        per_pixel_threshold = np.zeros((0, len(PIXEL_THRESHOLDS)), np.int32)
        per_image = np.zeros(0, np.int32)
        return {
            "pixels": per_image,
            "intersection": per_threshold,
            "predicted": per_threshold,
            "labelled": per_image,
            "pixel_intersection": per_pixel_threshold,
            "pixel_predicted": per_pixel_threshold,
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
        at_least = [prediction >= 255 * t for t in PIXEL_THRESHOLDS]
        return {
            "pixels": image_sum(mask, mask),
            "intersection": xp.stack([image_sum(a & foreground, mask) for a in above], axis=1),
            "predicted": xp.stack([image_sum(a, mask) for a in above], axis=1),
            "labelled": image_sum(foreground, mask),
            "pixel_intersection": xp.stack([image_sum(a & foreground, mask) for a in at_least], axis=1),
            "pixel_predicted": xp.stack([image_sum(a, mask) for a in at_least], axis=1),
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
            "maxF_pixel": _pixel_f(stats),
            "thresholds": list(self.thresholds),
            "IoU_per_threshold": jaccard.tolist(),
            "precision_per_threshold": precision.tolist(),
            "recall_per_threshold": recall.tolist(),
            "F_per_threshold": f.tolist(),
        }


def _pixel_f(stats: Stats) -> float:
    """Returns the largest F over the pixels of all images; 0 where it is undefined, NaN without a labelled pixel."""
    if not stats["pixels"].any():
        return math.nan
    intersection, predicted = total(stats["pixel_intersection"]), total(stats["pixel_predicted"])
    precision = ratio(intersection, predicted, empty=0.0)
    recall = ratio(intersection, total(stats["labelled"]), empty=0.0)
    f = ratio((1 + _BETA_SQUARED) * precision * recall, _BETA_SQUARED * precision + recall, empty=0.0)
    return float(f.max())
