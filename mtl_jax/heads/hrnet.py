"""HRNet head (arXiv 1908.07919, sec. 3.4, "HRNetV2"), and the fusion of the maps that it begins with."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_jax.heads.registry import register
from mtl_jax.nn import BatchNorm, Conv, Sequential, recomputable, resize_like


class Fusion(nnx.Module):
    """Fusion of maps of several resolutions: resize to the finest, concatenate, conv1x1 with bias, BN, ReLU.

    The result has as many channels as the maps together.

    Args:
        channels: Number of channels of each map, finest first.
        rngs: Source of the initial weights.
    """

    def __init__(self, channels: Sequence[int], *, rngs: nnx.Rngs):
        width = sum(channels)
        self.last_layer = Sequential([Conv(width, width, 1, use_bias=True, rngs=rngs), BatchNorm(width), nnx.relu])

    @recomputable
    def __call__(self, maps: Sequence[jax.Array]) -> jax.Array:
        """`([B, H, W, C0], [B, H/2, W/2, C1], ...) -> [B, H, W, C0 + C1 + ...]`"""
        finest = maps[0]
        return self.last_layer(jnp.concatenate([finest, *(resize_like(x, finest) for x in maps[1:])], axis=-1))


@register("hrnet")
class HRNetHead(Fusion):
    """HRNet head: the fusion, followed by a conv1x1 with bias to `[B, H, W, num_outputs]` logits.

    The logits have the size of the finest map.

    Args:
        channels: Number of channels of each map, finest first.
        num_outputs: Number of logit channels.
        rngs: Source of the initial weights.
    """

    def __init__(self, channels: Sequence[int], num_outputs: int, *, rngs: nnx.Rngs):
        super().__init__(channels, rngs=rngs)
        self.last_layer.append(Conv(sum(channels), num_outputs, 1, use_bias=True, rngs=rngs))
