"""The boundary protocols in use. They give different scores, so a score should always come with its protocol."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mtl_jax.boundaries.suppression import suppress

# Decimal literals, as in the published evaluations: adding up a step of 0.01 would give other rounding errors.
_HUNDREDTHS = tuple(f"{i / 100:.2f}" for i in range(1, 100))
_OUTER = ("0.001", *_HUNDREDTHS, "0.999")


def equally_spaced(count: int) -> tuple[str, ...]:
    """Returns `count` thresholds between 0 and 1 with the rounding errors of the BSDS500 benchmark."""
    return tuple(repr(float(x)) for x in np.linspace(1 / (count + 1), 1 - 1 / (count + 1), count))


@dataclass(frozen=True)
class BoundaryProtocol:
    """The rules by which maps of boundary strength are scored.

    Attributes:
        name: Name of the protocol, with which results are labelled.
        thresholds: Thresholds as decimal literals in increasing order.
        suppress: True if non-maximum suppression is applied first and pixels above the threshold count. Otherwise
            there is no suppression, and pixels at or above the threshold count.
        max_dist: Largest distance of matched pixels as a fraction of the diagonal of the image.
        interpolated: True if the best F between thresholds counts, too, as in the benchmark of BSDS500.
    """

    name: str
    thresholds: tuple[str, ...]
    suppress: bool
    max_dist: float = 0.0075
    interpolated: bool = False

    def prepare(self, prediction: np.ndarray) -> np.ndarray:
        """Converts a prediction, uint8 `[H, W]`, to the strength in 0..1 `[H, W]` that is compared with thresholds."""
        if self.suppress:
            return suppress(prediction.astype(np.float32) / np.float32(255))
        return prediction / 255

    def passing(self, strength: np.ndarray, threshold: str) -> np.ndarray:
        """Returns a bool `[H, W]` that is True where the strength passes the threshold.

        The threshold is rounded to the dtype of the strength.
        """
        limit = strength.dtype.type(threshold)
        return strength > limit if self.suppress else strength >= limit

    @property
    def values(self) -> np.ndarray:
        """The thresholds, float64 `[T]`."""
        return np.array(self.thresholds, np.float64)


PROTOCOLS: Mapping[str, BoundaryProtocol] = {
    protocol.name: protocol
    for protocol in (
        BoundaryProtocol("plain", _HUNDREDTHS, suppress=False),  # arXiv 2004.13379, 2001.06902
        # used by ATRC, InvPT and TaskPrompter, and by ASTMT, which scores all images of val
        BoundaryProtocol("nms", _OUTER, suppress=True),
        # for predictions to which suppression has already been applied
        BoundaryProtocol("bsds_bench", equally_spaced(99), suppress=False, interpolated=True),
    )
}


def get(name: str, max_dist: float | None = None) -> BoundaryProtocol:
    """Returns a boundary protocol.

    Args:
        name: Name of the protocol.
        max_dist: Largest distance of matched pixels as a fraction of the diagonal; 0.0075 is usual, and 0.011 for NYUD.
            None means that of the protocol.

    Raises:
        ValueError: there is no protocol of this name, or `max_dist` is not between 0 and 1.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"unknown boundary protocol {name!r}; the protocols are {', '.join(PROTOCOLS)}")
    if max_dist is None:
        return PROTOCOLS[name]
    if not 0 < max_dist < 1:
        raise ValueError(f"max_dist is {max_dist}, expected a fraction of the image's diagonal such as 0.0075")
    return replace(PROTOCOLS[name], max_dist=max_dist)
