"""Linear head of DINOv2 for depth (arXiv 2304.07193): a linear layer on the tokens of several blocks."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_jax.heads.registry import register
from mtl_jax.nn import BlockTokens, Conv, recomputable, resize_bilinear

FACTOR = 4  # of the enlargement


@register("linear")
class LinearHead(nnx.Module):
    """Linear head: conv1x1 with bias on patch tokens and class token, whose result is enlarged four times.

    The tokens of several blocks are concatenated. Names of layers are those of the published depth
    heads of DINOv2.

    Args:
        channels: Number of channels of the tokens of each block, the first block first.
        num_outputs: Number of logit channels.
        levels: Number of blocks whose tokens the head reads, the last ones.
        class_token: True to concatenate the class token of each block with each of its patch tokens.
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
        class_token: bool = True,
        final_norm: bool = False,
        rngs: nnx.Rngs,
    ):
        width = sum(channels[-levels:]) * (2 if class_token else 1)
        self.conv_depth = Conv(width, num_outputs, 1, use_bias=True, rngs=rngs)
        self.levels, self.class_token, self.final_norm = levels, class_token, final_norm

    @recomputable
    def __call__(self, blocks: Sequence[BlockTokens]) -> jax.Array:
        """(tokens `[B, h, w, C]` and `[B, C]`, ...) -> `[B, 4h, 4w, num_outputs]`"""
        maps = []
        for block in blocks[-self.levels :]:
            tokens = block.normed if self.final_norm else block.raw
            maps.append(tokens.patches)
            if self.class_token:
                maps.append(jnp.broadcast_to(tokens.class_token[:, None, None], tokens.patches.shape))
        # The published head enlarges its many input channels. The results are equal, since the layer is linear and the
        # weights of an interpolation add up to 1.
        logits = self.conv_depth(jnp.concatenate(maps, axis=-1))
        return resize_bilinear(logits, (FACTOR * logits.shape[1], FACTOR * logits.shape[2]))
