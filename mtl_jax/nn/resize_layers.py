"""The layers that bring four maps of one resolution to four resolutions, as DPT does (arXiv 2103.13413, sec. 3.1)."""

from collections.abc import Sequence

from flax import nnx

from mtl_jax.nn.conv import Conv
from mtl_jax.nn.sequential import Sequential
from mtl_jax.nn.transposed_conv import TransposedConv


def resize_layers(channels: Sequence[int], *, rngs: nnx.Rngs) -> nnx.List:
    """Returns a layer for each of four maps `[B, h, w, channels[i]]`, which keeps the number of channels.

    Transposed convolutions enlarge the first map four times and the second one twice. The third one stays. A conv3x3
    halves the last one, where odd sides are rounded up.

    Args:
        channels: Number of channels of each map.
        rngs: Source of the initial weights.
    """
    finest, fine, _, coarse = channels
    return nnx.List(
        [
            TransposedConv(finest, finest, 4, rngs=rngs),
            TransposedConv(fine, fine, 2, rngs=rngs),
            Sequential([]),
            Conv(coarse, coarse, 3, stride=2, use_bias=True, rngs=rngs),
        ]
    )
