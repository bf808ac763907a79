"""The metric of class maps: semantic segmentation and human parts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mtl_jax.metrics.core import Metric, Result, Stats, check_shapes, counts, namespace, ratio
from mtl_jax.tasks import IGNORE


@dataclass(frozen=True)
class Segmentation(Metric):
    """Intersection over union and accuracy of class maps, over all pixels of the data set.

    IoU_c = TP_c / (TP_c + FP_c + FN_c), counted where the label is not 255. `mIoU` is the mean over all classes. As in
    the published numbers, a class that occurs neither in a label nor in a prediction counts as 0. `mIoU_present` is the
    mean over the classes that do occur. `mean_accuracy` is the mean of TP_c / (TP_c + FN_c) over the classes that occur
    in the labels.

    Attributes:
        num_classes: Number of classes; labels are 0..num_classes-1 or 255.
        skip_empty: True to ignore images whose label is 0 everywhere or 255 everywhere (images without a person).
    """

    num_classes: int
    skip_empty: bool = False

    of_one_image: ClassVar[Mapping[str, str]] = {"mIoU": "mIoU_present"}  # an image has few of the classes
    higher_is_better: ClassVar[Mapping[str, bool]] = dict.fromkeys(
        ("mIoU", "mIoU_present", "pixel_accuracy", "mean_accuracy"), True
    )

    def empty(self) -> Stats:
        return {name: np.zeros((0, self.num_classes), np.int32) for name in ("tp", "fp", "fn")}

    def update(self, prediction: Any, label: Any) -> Stats:
        """Counts true positives, false positives and false negatives of each image, `[B, num_classes]` each.

        Args:
            prediction: Predicted classes, integers `[B, H, W]`.
            label: True classes, `[B, H, W, 1]`.
        """
        check_shapes(prediction, label, None)
        xp, _ = namespace(prediction)
        prediction = prediction.astype(np.int32)
        label = xp.asarray(label)[..., 0].astype(np.int32)
        mask = label != IGNORE
        if self.skip_empty:
            empty = (label == 0).all(axis=(1, 2)) | (~mask).all(axis=(1, 2))
            mask = mask & ~empty[:, None, None]
        tp = counts(label, mask & (prediction == label), self.num_classes)
        fp = counts(prediction, mask, self.num_classes) - tp
        fn = counts(label, mask, self.num_classes) - tp
        return {"tp": tp, "fp": fp, "fn": fn}

    def compute(self, stats: Stats) -> Result:
        tp, fp, fn = (stats[name].sum(axis=0) for name in ("tp", "fp", "fn"))
        any_pixel = bool((tp + fp + fn).any())
        iou = ratio(tp, tp + fp + fn, empty=0.0 if any_pixel else np.nan)
        present, labelled = tp + fp + fn > 0, tp + fn > 0
        return {
            "mIoU": float(iou.mean()),
            "mIoU_present": float(ratio(iou[present].sum(), present.sum())),
            "pixel_accuracy": float(ratio(tp.sum(), (tp + fn).sum())),
            "mean_accuracy": float(ratio(ratio(tp, tp + fn, empty=0.0).sum(), labelled.sum())),
            "per_class_IoU": iou.tolist(),
        }

    def resampled(self, stats: Stats, everything: Stats) -> Result:
        """Computes the scores of a bootstrap sample.

        A class that occurs in the data set but not in the sample does not enter mIoU, instead of counting as 0.

        Args:
            stats: Statistics of the drawn images.
            everything: Statistics of all images.
        """
        scores = self.compute(stats)
        occurring = np.any([everything[name].any(axis=0) for name in ("tp", "fp", "fn")], axis=0)
        return scores | {"mIoU": float(np.multiply(scores["mIoU_present"], occurring.mean()))}
