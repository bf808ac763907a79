"""The HRNet head (arXiv 1908.07919, sec. 3.4, "HRNetV2"), and the part of it that fuses the resolutions."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from mtl_jax.nn import BatchNorm, Conv, Sequential, resize_like


class Fusion(nnx.Module):
    """Resizes all maps to the finest and concatenates them; conv1x1 with bias, BN, ReLU, which keep the width.

    Args:
        channels: widths of the maps, finest first.
    """

    def __init__(self, channels: Sequence[int], *, dtype: Dtype | None = None, rngs: nnx.Rngs):
        width = sum(channels)
        self.last_layer = Sequential(
            [
                Conv(width, width, 1, use_bias=True, dtype=dtype, rngs=rngs),
                BatchNorm(width, dtype=dtype),
                nnx.relu,
            ]
        )

    def __call__(self, maps: Sequence[jax.Array]) -> jax.Array:
        """`([B, H, W, C0], [B, H/2, W/2, C1], ...) -> [B, H, W, C0 + C1 + ...]`"""
        finest = maps[0]
        return self.last_layer(jnp.concatenate([finest, *(resize_like(x, finest) for x in maps[1:])], axis=-1))


class HRNetHead(Fusion):
    """The fusion followed by a conv1x1 with bias: `[B, H, W, num_outputs]` logits at the finest map's size.

    Args:
        channels: widths of the maps, finest first.
        num_outputs: number of logit channels.
    """

    def __init__(self, channels: Sequence[int], num_outputs: int, *, dtype: Dtype | None = None, rngs: nnx.Rngs):
        super().__init__(channels, dtype=dtype, rngs=rngs)
        self.last_layer.append(Conv(sum(channels), num_outputs, 1, use_bias=True, dtype=dtype, rngs=rngs))
