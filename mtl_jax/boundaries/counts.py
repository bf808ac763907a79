"""What one image contributes to the boundary scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtl_jax.boundaries.matching import cheapest_pairs, count_pairs, tolerance
from mtl_jax.boundaries.protocols import BoundaryProtocol
from mtl_jax.boundaries.thinning import thin


@dataclass(frozen=True)
class BoundaryCounts:
    """Pixels at each threshold, int64 `[T]`; of a data set with the images in front, `[N, T]`.

    Attributes:
        matched_truth: true pixels with a partner, added up over the annotators ("cntR").
        truth: true pixels ("sumR").
        matched_prediction: predicted pixels with a partner in any annotator's boundary ("cntP").
        prediction: predicted pixels ("sumP").
    """

    matched_truth: np.ndarray
    truth: np.ndarray
    matched_prediction: np.ndarray
    prediction: np.ndarray

    @staticmethod
    def stack(images: Sequence["BoundaryCounts"]) -> "BoundaryCounts":
        """The counts of several images as those of a data set.

        Raises:
            ValueError: there is no image.
        """
        if not images:
            raise ValueError("there is no image to score")
        return BoundaryCounts(*(np.stack([getattr(image, name) for image in images]) for name in FIELDS))


FIELDS = tuple(BoundaryCounts.__dataclass_fields__)


def count(prediction: np.ndarray, truths: Sequence[np.ndarray], protocol: BoundaryProtocol) -> BoundaryCounts:
    """Compares one predicted map with the boundaries of one or several annotators.

    With a single annotator any largest matching gives the counts; with several it is the cheapest one, see `matching`.

    Args:
        prediction: uint8 `[H, W]`, 255 times the strength.
        truths: thin boundaries, bool `[H, W]`, for example from `labels.label_boundary`.
        protocol: thresholds, suppression and tolerance.

    Raises:
        ValueError: another dtype or size, or no annotator.
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
    """As `count`, of a prediction that is prepared already: what the thresholds are compared with, `[H, W]`."""
    radius = tolerance(protocol.max_dist, strength.shape)
    rows: list[tuple[int, int, int, int]] = []
    before = None
    for threshold in protocol.thresholds:
        passing = protocol.passing(strength, threshold)
        if before is None or not np.array_equal(passing, before):
            rows.append(_compare(thin(passing), truths, radius))
            before = passing
        else:
            rows.append(rows[-1])  # maps with few grey levels often stay the same
    return BoundaryCounts(*np.array(rows, np.int64).T)


def _compare(thinned: np.ndarray, truths: Sequence[np.ndarray], radius: float) -> tuple[int, int, int, int]:
    """The numbers of `BoundaryCounts` for one thinned map."""
    true, predicted = sum(int(truth.sum()) for truth in truths), int(thinned.sum())
    if len(truths) == 1:
        pairs = count_pairs(thinned, truths[0], radius)
        return pairs, true, pairs, predicted
    matched = [cheapest_pairs(thinned, truth, radius) for truth in truths]
    return sum(int(pixels.sum()) for pixels in matched), true, int(np.any(matched, axis=0).sum()), predicted
