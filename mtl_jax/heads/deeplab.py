"""DeepLab head (arXiv 1706.05587, sec. 3.3): atrous spatial pyramid pooling and two convolutions."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_jax.heads.registry import register
from mtl_jax.nn import BatchNorm, Conv, Dropout, Sequential, recomputable

RATES = (12, 24, 36)
WIDTH = 256
DROPOUT = 0.5


def _global_mean(x: jax.Array) -> jax.Array:
    return x.mean((1, 2), keepdims=True)


class ASPP(nnx.Module):
    """Atrous spatial pyramid pooling: `[B, H, W, C] -> [B, H, W, 256]`.

    Parallel 1x1, dilated 3x3 and image-pooling branches, concatenated and projected.

    Args:
        in_features: Number of channels of the input.
        rngs: Source of the initial weights.

    Raises:
        ValueError: The call trains on a batch, or on groups of batch norm, of one image. The pooled map of a single
            image leaves batch norm a single value per channel.
    """

    ONE_IMAGE = (
        "the DeepLab head cannot train on a global batch of one image, nor on micro-batches or groups of batch norm of "
        "one: its image-pooling branch normalises over the images alone. Set train.batch_size to 2 or more times "
        "train.accumulate times train.batch_norm_groups, or use model.head='hrnet'"
    )

    def __init__(self, in_features: int, *, rngs: nnx.Rngs):
        conv = partial(Conv, rngs=rngs)
        norm = partial(BatchNorm, WIDTH)
        self.convs = nnx.List(
            [
                Sequential([conv(in_features, WIDTH, 1), norm(), nnx.relu]),
                *(Sequential([conv(in_features, WIDTH, 3, dilation=rate), norm(), nnx.relu]) for rate in RATES),
                Sequential([_global_mean, conv(in_features, WIDTH, 1), norm(), nnx.relu]),
            ]
        )
        width = WIDTH * len(self.convs)
        self.project = Sequential([conv(width, WIDTH, 1), norm(), nnx.relu, Dropout(DROPOUT)])

    def __call__(self, x: jax.Array) -> jax.Array:
        *branches, pooling = self.convs
        norm = pooling[2]
        if not norm.use_running_average and x.shape[0] == norm.batch_norm_groups:
            raise ValueError(self.ONE_IMAGE)
        pooled = pooling(x)  # [B, 1, 1, 256]; enlarging a single pixel repeats it
        maps = [branch(x) for branch in branches]
        return self.project(jnp.concatenate([*maps, jnp.broadcast_to(pooled, maps[0].shape)], axis=-1))


@register("deeplab")
class DeepLabHead(Sequential):
    """DeepLab head: ASPP, conv3x3 BN ReLU, conv1x1 with bias, on the coarsest map.

    Args:
        channels: Number of channels of each map, finest first.
        num_outputs: Number of logit channels.
        rngs: Source of the initial weights.
    """

    def __init__(self, channels: Sequence[int], num_outputs: int, *, rngs: nnx.Rngs):
        super().__init__(
            [
                ASPP(channels[-1], rngs=rngs),
                Conv(WIDTH, WIDTH, 3, rngs=rngs),
                BatchNorm(WIDTH),
                nnx.relu,
                Conv(WIDTH, num_outputs, 1, use_bias=True, rngs=rngs),
            ]
        )

    @recomputable
    def __call__(self, maps: Sequence[jax.Array]) -> jax.Array:
        """`(..., [B, H, W, C]) -> [B, H, W, num_outputs]`"""
        return super().__call__(maps[-1])
