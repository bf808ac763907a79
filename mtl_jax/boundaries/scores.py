"""Boundary scores (odsF, oisF and AP) from counts of matched pixels."""

from dataclasses import dataclass

import numpy as np

from mtl_jax.boundaries.counts import BoundaryCounts
from mtl_jax.boundaries.protocols import BoundaryProtocol

_STEPS = 100  # number of interpolated points between two thresholds


@dataclass(frozen=True)
class Scores:
    """The boundary scores of a data set.

    Attributes:
        odsF: F at the threshold that is best for the whole data set (optimal data set scale).
        ods_threshold: Threshold at which F is best.
        ods_recall: Recall at this threshold.
        ods_precision: Precision at this threshold.
        oisF: F if each image has its best threshold (optimal image scale).
        AP: Average precision, the area under the curve of precision over recall within the measured range.
        thresholds: Thresholds of the curves.
        recall: Recall of the data set at each threshold.
        precision: Precision of the data set at each threshold.
        F: F of the data set at each threshold.
    """

    odsF: float
    ods_threshold: float
    ods_recall: float
    ods_precision: float
    oisF: float
    AP: float
    thresholds: list[float]
    recall: list[float]
    precision: list[float]
    F: list[float]


def f_measure(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    """Computes F = 2 P R / (P + R), which is 0 where precision P and recall R are both 0."""
    total = precision + recall
    return np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)


def score(counts: BoundaryCounts, protocol: BoundaryProtocol) -> Scores:
    """Computes the scores of a data set from its counts `[N, T]`.

    odsF uses the best threshold of the protocol (the first one on ties), and oisF the best one for each image. If
    `protocol.interpolated`, recall and precision are interpolated in a hundred steps between neighbouring thresholds.
    AP interpolates precision linearly at the recalls 0, 0.01, ... 1, and counts recalls outside of the curve as 0.

    Raises:
        ValueError: the counts do not have the number of thresholds of the protocol.
    """
    shape = counts.truth.shape
    if counts.truth.ndim != 2 or shape[1] != len(protocol.thresholds):
        raise ValueError(f"expected counts [N, {len(protocol.thresholds)}] for {protocol.name!r}, got {shape}")
    summed = BoundaryCounts(*(value.sum(axis=0) for value in vars(counts).values()))
    recall, precision = _recall(summed), _precision(summed)
    f = f_measure(precision, recall)
    best_threshold, best_recall, best_precision, best_f = _best(recall, precision, protocol)
    chosen = f_measure(_precision(counts), _recall(counts)).argmax(axis=1)
    at_best = BoundaryCounts(
        *(value[np.arange(shape[0]), chosen].sum(keepdims=True) for value in vars(counts).values())
    )
    return Scores(
        odsF=best_f,
        ods_threshold=best_threshold,
        ods_recall=best_recall,
        ods_precision=best_precision,
        oisF=float(f_measure(_precision(at_best), _recall(at_best))[0]),
        AP=average_precision(recall, precision),
        thresholds=protocol.values.tolist(),
        recall=recall.tolist(),
        precision=precision.tolist(),
        F=f.tolist(),
    )


def image_scores(counts: BoundaryCounts, protocol: BoundaryProtocol) -> np.ndarray:
    """Computes (threshold, recall, precision, F) at the best threshold of each image, float64 `[N, 4]`."""
    return np.array(
        [_best(*curves, protocol) for curves in zip(_recall(counts), _precision(counts), strict=True)], np.float64
    )


def average_precision(recall: np.ndarray, precision: np.ndarray) -> float:
    """Computes the area under the curve of precision over recall.

    The curve is sampled at the recalls 0, 0.01, ... 1 and is 0 outside of the measured recalls.

    Args:
        recall: Recall at each threshold, `[T]`.
        precision: Precision at each threshold, `[T]`.
    """
    recalls, first = np.unique(recall, return_index=True)
    positions = np.linspace(0, 1, 101)
    measured = (positions >= recalls[0]) & (positions <= recalls[-1])
    return float(np.interp(positions[measured], recalls, precision[first]).sum() / 100)


def _recall(counts: BoundaryCounts) -> np.ndarray:
    """Computes the share of the true pixels that are matched; 1 where there are no true pixels."""
    return _share(counts.matched_truth, counts.truth)


def _precision(counts: BoundaryCounts) -> np.ndarray:
    """Computes the share of the predicted pixels that are matched.

    It is 0 where there are no true pixels, and otherwise 1 where there are no predicted pixels.
    """
    return np.where(counts.truth > 0, _share(counts.matched_prediction, counts.prediction), 0.0)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.ones(whole.shape), where=whole > 0)


def _best(recall: np.ndarray, precision: np.ndarray, protocol: BoundaryProtocol) -> tuple[float, float, float, float]:
    """Returns (threshold, recall, precision, F) at the best F, the first one on ties."""
    thresholds = protocol.values
    if protocol.interpolated and len(thresholds) > 1:
        share = np.linspace(0, 1, _STEPS)
        thresholds, recall, precision = (
            np.append((x[:-1, None] * (1 - share) + x[1:, None] * share).ravel(), x[-1])
            for x in (thresholds, recall, precision)
        )
    f = f_measure(precision, recall)
    best = int(f.argmax())
    return float(thresholds[best]), float(recall[best]), float(precision[best]), float(f[best])
