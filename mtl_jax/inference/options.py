"""Options of prediction."""

from dataclasses import dataclass

from mtl_jax.inference.placement import PLACEMENTS
from mtl_jax.runtime.messages import size_text

WINDOWS = "windows"
RESIZES = (*PLACEMENTS, WINDOWS)
_LEAST_SIDE = 32  # pixels


@dataclass(frozen=True)
class PredictOptions:
    """How images are brought to the network, and its predictions back to the images.

    Attributes:
        resize: How an image is brought to the network. "fit": it keeps its aspect and is shrunk or enlarged until it
            fits into the network's input size; what is left is padded, and the padding is cut off afterwards. "pad": as
            "fit", but a smaller image is not enlarged, as in evaluation after recipes that crop. "stretch": it gets the
            network's input size whatever its aspect, as in evaluation after other recipes. "none": it keeps its own
            size, with sides padded to what the backbone takes. "windows": it keeps its own size and is predicted in
            windows that overlap.
        flip: Predict the mirrored image as well, and average.
        scales: Scales of the network's input, whose predictions are averaged.
        window_size: (height, width) of the windows in pixels of the image; (0, 0) = the network's input size.
        overlap: Least part of a window's side that it shares with the next window, from 0 to below 1.
        batch_size: Number of images, or windows, that are predicted at once.

    Raises:
        ValueError: An option has an impossible value.
    """

    resize: str = "fit"
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    window_size: tuple[int, int] = (0, 0)
    overlap: float = 0.25
    batch_size: int = 1

    def __post_init__(self):
        if self.resize not in RESIZES:
            raise ValueError(f"resize is {self.resize!r}; it may be {' or '.join(map(repr, RESIZES))}")
        if not self.scales or not all(0 < scale <= 8 for scale in self.scales):
            raise ValueError(f"scales are {self.scales}; give at least one number, each above 0 and at most 8")
        if tuple(self.window_size) != (0, 0):
            if self.resize != WINDOWS:
                raise ValueError(
                    f"window_size is {size_text(self.window_size)} and resize {self.resize!r}, which has no windows; "
                    f"set resize={WINDOWS!r}, or leave window_size out"
                )
            if min(self.window_size) < _LEAST_SIDE:
                raise ValueError(f"window_size is {size_text(self.window_size)}; the least side is {_LEAST_SIDE}")
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap is {self.overlap}; give a number from 0 to below 1")
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}; the least is 1")

    @property
    def views(self) -> tuple[tuple[float, bool], ...]:
        """The predictions that are averaged: (scale, whether the image is mirrored)."""
        return tuple((scale, mirrored) for scale in self.scales for mirrored in ((False, True)[: 1 + self.flip]))
