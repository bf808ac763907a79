"""What heads and models expect of a backbone."""

import jax
from flax import nnx


class Backbone(nnx.Module):
    """`[B, H, W, 3]` images to feature maps, finest first.

    Attributes:
        channels: widths of the maps.
    """

    channels: tuple[int, ...]

    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        raise TypeError(f"{type(self).__name__} does not define __call__")
