"""The vision transformer (arXiv 2010.11929), with what DINOv2 (arXiv 2304.07193) and DINOv3 (arXiv 2508.10104) add."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mtl_jax.backbones.base import Maps
from mtl_jax.backbones.renormalise import renormalised
from mtl_jax.backbones.vit_variants import Variant
from mtl_jax.nn import DropPath, LayerNorm, LayerScale, PatchEmbed, SelfAttention, drop_path_rates, recomputable
from mtl_jax.nn.init import trunc_normal
from mtl_jax.nn.rotary import angles

_CLASS_STD_RATIO = 1e-6 / 0.02  # class and register tokens start from N(0, 1e-6^2)


class Block(nnx.Module):
    """A transformer block: x += ls1(attn(norm1(x))), then x += ls2(mlp(norm2(x))): `[B, N, C] -> [B, N, C]`.

    Args:
        variant: Sizes of the transformer.
        drop_path: Probability that an image loses a branch in training; each of the two branches has its own draw.
        rngs: Source of the initial weights.
    """

    def __init__(self, variant: Variant, drop_path: float = 0.0, *, rngs: nnx.Rngs):
        width, scale = variant.width, variant.layer_scale
        self.norm1 = LayerNorm(width, epsilon=variant.epsilon)
        self.attn = SelfAttention(width, variant.heads, biases=variant.biases, rngs=rngs)
        self.ls1 = LayerScale(width, scale) if scale else None
        self.norm2 = LayerNorm(width, epsilon=variant.epsilon)
        self.mlp = variant.mlp(width, variant.hidden_units, rngs=rngs)
        self.ls2 = LayerScale(width, scale) if scale else None
        self.drop_path = DropPath(drop_path, ndim=3) if drop_path else None

    @recomputable
    def __call__(self, x: jax.Array, rotation: np.ndarray | jax.Array | None) -> jax.Array:
        x = x + self._branch(self.attn(self.norm1(x), rotation), self.ls1)
        return x + self._branch(self.mlp(self.norm2(x)), self.ls2)

    def _branch(self, y: jax.Array, layer_scale: LayerScale | None) -> jax.Array:
        y = y if layer_scale is None else layer_scale(y)
        return y if self.drop_path is None else self.drop_path(y)


class VisionTransformer(nnx.Module):
    """A vision transformer without its classifier: what a file of published weights holds.

    Tokens are kept as two maps: the patch tokens `[B, h, w, C]`, and the tokens without a place in the image, the class
    token before the registers, `[B, 1, 1 + registers, C]`.

    Args:
        variant: Sizes of the transformer.
        grid: (rows, columns) of patches for which the position embedding is stored; None = those of the variant.
        drop_path: Probability that an image loses a branch of the last block in training (`DropPath`). Those of the
            blocks before it grow linearly from 0.
        rngs: Source of the initial weights.
    """

    def __init__(
        self, variant: Variant, *, grid: tuple[int, int] | None = None, drop_path: float = 0.0, rngs: nnx.Rngs
    ):
        width = variant.width

        def token(number: int) -> nnx.Param:
            return nnx.Param(_CLASS_STD_RATIO * trunc_normal(rngs.params(), (1, number, width)))

        self.patch_embed = PatchEmbed(width, variant.patch, rngs=rngs)
        self.cls_token = token(1)
        self.register_tokens = token(variant.registers) if variant.registers else None
        self.grid = grid or (variant.grid, variant.grid)
        positions = (1, 1 + math.prod(self.grid), width)
        self.pos_embed = nnx.Param(trunc_normal(rngs.params(), positions)) if variant.grid else None
        (rates,) = drop_path_rates(drop_path, variant.outputs[-1:])
        self.blocks = nnx.List([Block(variant, rate, rngs=rngs) for rate in rates])
        self.norm = LayerNorm(width, epsilon=variant.epsilon)
        self.variant = variant

    def embed(self, images: jax.Array) -> Maps:
        """Computes the tokens before the first block.

        Args:
            images: `[B, H, W, 3]` images, normalised with ImageNet statistics.

        Raises:
            ValueError: The sides of the images are not multiples of the patch.
        """
        patches = self.patch_embed(renormalised(images, self.variant.mean, self.variant.std))
        batch, height, width, features = patches.shape
        prefix = [self.cls_token[...]]
        if self.pos_embed is not None:
            embedding = self.pos_embed[...]
            prefix = [prefix[0] + embedding[:, :1]]
            grid = embedding[:, 1:].reshape(1, *self.grid, features)
            patches = patches + self.variant.resize(grid, (height, width)).astype(patches.dtype)
        if self.register_tokens is not None:
            prefix.append(self.register_tokens[...])
        tokens = jnp.concatenate(prefix, axis=1).astype(patches.dtype)[:, None]
        return patches, jnp.broadcast_to(tokens, (batch, *tokens.shape[1:]))

    def run(self, blocks: Sequence[Block], tokens: Maps) -> Maps:
        """Computes the tokens after some blocks, which follow one another, from the tokens before them."""
        patches, prefix = tokens
        batch, height, width, features = patches.shape
        number = prefix.shape[2]
        rotation = None if self.variant.grid else angles(height, width, features // self.variant.heads)
        x = jnp.concatenate([prefix[:, 0], patches.reshape(batch, height * width, features)], axis=1)
        for block in blocks:
            x = block(x, rotation)
        return x[:, number:].reshape(patches.shape), x[:, None, :number]
