"""From counts to odsF, oisF and AP."""

from dataclasses import dataclass

import numpy as np

from mtl_jax.boundaries.counts import BoundaryCounts
from mtl_jax.boundaries.protocols import BoundaryProtocol

_STEPS = 100  # between two thresholds, where a protocol interpolates


@dataclass(frozen=True)
class Scores:
    """The scores of a data set.

    Attributes:
        odsF: F at the one threshold that is best for the data set (optimal data set scale).
        ods_threshold, ods_recall, ods_precision: there.
        oisF: F with the best threshold for each image (optimal image scale).
        AP: average precision, the area under the curve of precision over recall within the measured range.
        thresholds, recall, precision, F: the data set's curve, lists over the thresholds.
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
    """2 P R / (P + R), 0 where both are 0."""
    total = precision + recall
    return np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)


def score(counts: BoundaryCounts, protocol: BoundaryProtocol) -> Scores:
    """The scores of a data set's counts `[N, T]`.

    odsF takes the best of the protocol's thresholds (the first on ties), oisF the best for each image; with
    `protocol.interpolated` recall and precision are interpolated in a hundred steps between neighbouring thresholds.
    AP interpolates precision linearly at the recalls 0, 0.01, ... 1 and counts what lies outside the curve as 0.

    Raises:
        ValueError: the counts are not those of the protocol's thresholds.
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
    """(threshold, recall, precision, F) at each image's best threshold, float64 `[N, 4]`."""
    return np.array(
        [_best(*curves, protocol) for curves in zip(_recall(counts), _precision(counts), strict=True)], np.float64
    )


def average_precision(recall: np.ndarray, precision: np.ndarray) -> float:
    """The area under precision over recall, sampled at 0, 0.01, ... 1; outside the measured recalls it is 0."""
    recalls, first = np.unique(recall, return_index=True)
    positions = np.linspace(0, 1, 101)
    measured = (positions >= recalls[0]) & (positions <= recalls[-1])
    return float(np.interp(positions[measured], recalls, precision[first]).sum() / 100)


def _recall(counts: BoundaryCounts) -> np.ndarray:
    """Share of the true pixels that is found: 1 where there are none."""
    return _share(counts.matched_truth, counts.truth)


def _precision(counts: BoundaryCounts) -> np.ndarray:
    """Share of the predicted pixels that is right: 1 where there are none, but 0 where nothing could be right."""
    return np.where(counts.truth > 0, _share(counts.matched_prediction, counts.prediction), 0.0)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.ones(whole.shape), where=whole > 0)


def _best(recall: np.ndarray, precision: np.ndarray, protocol: BoundaryProtocol) -> tuple[float, float, float, float]:
    """(threshold, recall, precision, F) where F is best, the first on ties."""
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
