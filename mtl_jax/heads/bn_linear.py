"""Linear head of DINOv2 for semantic segmentation (arXiv 2304.07193): batch norm and a linear layer on patch tokens."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_jax.heads.registry import register
from mtl_jax.nn import BatchNorm, BlockTokens, Conv, recomputable


@register("bn_linear")
class BNLinearHead(nnx.Module):
    """Linear head with batch norm: BN, conv1x1 with bias on patch tokens (DINOv2's "BNHead").

    The tokens of several blocks are concatenated. Names of layers are those of the published
    segmentation heads of DINOv2.

    Args:
        channels: Number of channels of the tokens of each block, the first block first.
        num_outputs: Number of logit channels.
        levels: Number of blocks whose tokens the head reads, the last ones.
        final_norm: True for tokens after the final norm of the transformer.
        rngs: Source of the initial weights.
    """

    reads_tokens: ClassVar[bool] = True

    def __init__(
        self,
        channels: Sequence[int],
        num_outputs: int,
        *,
        levels: Literal[1, 2, 3, 4] = 4,
        final_norm: bool = True,
        rngs: nnx.Rngs,
    ):
        width = sum(channels[-levels:])
        self.bn = BatchNorm(width)
        self.conv_seg = Conv(width, num_outputs, 1, use_bias=True, rngs=rngs)
        self.levels, self.final_norm = levels, final_norm

    @recomputable
    def __call__(self, blocks: Sequence[BlockTokens]) -> jax.Array:
        """(tokens `[B, h, w, C]`, ...) -> `[B, h, w, num_outputs]`"""
        chosen = [block.normed if self.final_norm else block.raw for block in blocks[-self.levels :]]
        return self.conv_seg(self.bn(jnp.concatenate([tokens.patches for tokens in chosen], axis=-1)))
