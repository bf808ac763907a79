"""Counts of matched boundary pixels, from which the scores are computed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtl_jax.boundaries.matching import cheapest_pairs, count_pairs, tolerance
from mtl_jax.boundaries.protocols import BoundaryProtocol
from mtl_jax.boundaries.thinning import thin


@dataclass(frozen=True)
class BoundaryCounts:
    """Numbers of pixels at each of T thresholds, int64 `[T]` for one image or `[N, T]` for a data set.

    The names in parentheses are those of the Berkeley benchmark.

    Attributes:
        matched_truth: Number of true pixels that are matched, summed over the annotators ("cntR").
        truth: Number of true pixels, summed over the annotators ("sumR").
        matched_prediction: Number of predicted pixels that are matched in the boundary of any annotator ("cntP").
        prediction: Number of predicted pixels ("sumP").
    """

    matched_truth: np.ndarray
    truth: np.ndarray
    matched_prediction: np.ndarray
    prediction: np.ndarray

    @staticmethod
    def stack(images: Sequence["BoundaryCounts"]) -> "BoundaryCounts":
        """Stacks the counts `[T]` of N images into those of a data set, `[N, T]`.

        Raises:
            ValueError: there is no image.
        """
        if not images:
            raise ValueError("there is no image to score")
        return BoundaryCounts(*(np.stack([getattr(image, name) for image in images]) for name in FIELDS))


FIELDS = tuple(BoundaryCounts.__dataclass_fields__)


def count(prediction: np.ndarray, truths: Sequence[np.ndarray], protocol: BoundaryProtocol) -> BoundaryCounts:
    """Compares one predicted map with the boundaries of one or several annotators.

    For a single annotator every largest matching gives the same counts. For several annotators the cheapest matching is
    used, see `matching`.

    Args:
        prediction: Predicted boundary strength times 255, uint8 `[H, W]`.
        truths: Thin boundary of each annotator, bool `[H, W]`, for example from `labels.label_boundary`.
        protocol: Thresholds, suppression and tolerance.

    Raises:
        ValueError: the prediction is not uint8 `[H, W]`, a boundary has another size, or there is no annotator.
    """
    if prediction.dtype != np.uint8 or prediction.ndim != 2:
        raise ValueError(
            f"expected a prediction of 8 bits, uint8 [H, W]; got {prediction.dtype} with the shape {prediction.shape}"
        )
    if not truths or any(truth.shape != prediction.shape for truth in truths):
        raise ValueError(
            f"the prediction has the size {prediction.shape}, the true boundaries "
            f"{', '.join(str(truth.shape) for truth in truths) or '(none)'}; expected the same"
        )
    return count_strength(protocol.prepare(prediction), truths, protocol)


def count_strength(strength: np.ndarray, truths: Sequence[np.ndarray], protocol: BoundaryProtocol) -> BoundaryCounts:
    """Compares a boundary strength `[H, W]` from `BoundaryProtocol.prepare` with the true boundaries, like `count`."""
    radius = tolerance(protocol.max_dist, strength.shape)
    rows: list[tuple[int, int, int, int]] = []
    before = None
    for threshold in protocol.thresholds:
        passing = protocol.passing(strength, threshold)
        if before is None or not np.array_equal(passing, before):
            rows.append(_compare(thin(passing), truths, radius))
            before = passing
        else:
            rows.append(rows[-1])  # a map with few grey levels often does not change from one threshold to the next
    return BoundaryCounts(*np.array(rows, np.int64).T)


def _compare(thinned: np.ndarray, truths: Sequence[np.ndarray], radius: float) -> tuple[int, int, int, int]:
    """Returns the four numbers of `BoundaryCounts` for one thinned map."""
    true, predicted = sum(int(truth.sum()) for truth in truths), int(thinned.sum())
    if len(truths) == 1:
        pairs = count_pairs(thinned, truths[0], radius)
        return pairs, true, pairs, predicted
    matched = [cheapest_pairs(thinned, truth, radius) for truth in truths]
    return sum(int(pixels.sum()) for pixels in matched), true, int(np.any(matched, axis=0).sum()), predicted
