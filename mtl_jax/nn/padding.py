"""Zeros around the maps that strided convolutions read."""

from collections.abc import Sequence

Margins = list[tuple[int, int]]  # (before, after) of each side of a map


def same_margins(size: Sequence[int], kernel_size: int, stride: int, dilation: int = 1) -> Margins:
    """Returns TensorFlow's "SAME" padding, of which the greater half comes after the map.

    At stride 2 it depends on the size: a 3x3 kernel on an even side reads no zero before it and one after it, where
    symmetric padding has one before it. The two agree at stride 1.

    Args:
        size: Sides of the map in pixels.
        kernel_size: Side of the kernel.
        stride: Stride of the convolution.
        dilation: Dilation of the convolution.
    """
    reach = dilation * (kernel_size - 1) + 1
    totals = (max((-(-side // stride) - 1) * stride + reach - side, 0) for side in size)
    return [(total // 2, total - total // 2) for total in totals]


def symmetric_margins(kernel_size: int, dilation: int = 1) -> Margins:
    """Returns the padding of a map by `dilation * (kernel_size // 2)` on every side, as torch's networks have it."""
    return [(dilation * (kernel_size // 2),) * 2] * 2
