"""The boundary protocols in use. They give different numbers: name the protocol wherever a number is printed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mtl_jax.boundaries.suppression import suppress

# Decimal literals, as the published evaluations parse them; an accumulated step would miss some by a rounding.
_HUNDREDTHS = tuple(f"{i / 100:.2f}" for i in range(1, 100))
_OUTER = ("0.001", *_HUNDREDTHS, "0.999")


def equally_spaced(count: int) -> tuple[str, ...]:
    """`count` thresholds between 0 and 1 as the benchmark of BSDS500 computes them, with its roundings."""
    return tuple(repr(float(x)) for x in np.linspace(1 / (count + 1), 1 - 1 / (count + 1), count))


@dataclass(frozen=True)
class BoundaryProtocol:
    """How a map of boundary strength becomes scores.

    Attributes:
        name: what results are labelled with.
        thresholds: decimal numbers in increasing order.
        suppress: non-maximum suppression comes first, and pixels pass that are above the threshold; without it, those
            at or above it.
        max_dist: how far matched pixels may be apart, as a fraction of the image's diagonal.
        interpolated: scores take the best F between thresholds, too (the benchmark of BSDS500).
    """

    name: str
    thresholds: tuple[str, ...]
    suppress: bool
    max_dist: float = 0.0075
    interpolated: bool = False

    def prepare(self, prediction: np.ndarray) -> np.ndarray:
        """uint8 `[H, W]` -> the strength that thresholds are compared with, `[H, W]`."""
        if self.suppress:
            return suppress(prediction.astype(np.float32) / np.float32(255))
        return prediction / 255

    def passing(self, strength: np.ndarray, threshold: str) -> np.ndarray:
        """bool `[H, W]`: what passes; the threshold is rounded to the precision of the strength."""
        limit = strength.dtype.type(threshold)
        return strength > limit if self.suppress else strength >= limit

    @property
    def values(self) -> np.ndarray:
        """The thresholds as float64 `[T]`."""
        return np.array(self.thresholds, np.float64)


PROTOCOLS: Mapping[str, BoundaryProtocol] = {
    protocol.name: protocol
    for protocol in (
        BoundaryProtocol("plain", _HUNDREDTHS, suppress=False),  # arXiv 2004.13379, 2001.06902
        # ATRC, InvPT and TaskPrompter; ASTMT, which scores all images of val
        BoundaryProtocol("nms", _OUTER, suppress=True),
        # for predictions that are suppressed already
        BoundaryProtocol("bsds_bench", equally_spaced(99), suppress=False, interpolated=True),
    )
}


def get(name: str, max_dist: float | None = None) -> BoundaryProtocol:
    """The protocol of this name, if wanted with another tolerance: 0.0075 is usual, 0.011 for NYUD.

    Raises:
        ValueError: no such protocol, or a tolerance that is none.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"unknown boundary protocol {name!r}; the protocols are {', '.join(PROTOCOLS)}")
    if max_dist is None:
        return PROTOCOLS[name]
    if not 0 < max_dist < 1:
        raise ValueError(f"max_dist is {max_dist}, expected a fraction of the image's diagonal such as 0.0075")
    return replace(PROTOCOLS[name], max_dist=max_dist)
