"""Swin Transformer (arXiv 2103.14030): attention in windows that every other block shifts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mtl_jax.backbones.hierarchy import Hierarchy, Stage
from mtl_jax.backbones.published import renamed
from mtl_jax.backbones.registry import register
from mtl_jax.backbones.weights_table import register_weights
from mtl_jax.nn import (
    DropPath,
    LayerNorm,
    Linear,
    Mlp,
    PatchProjection,
    WindowAttention,
    drop_path_rates,
    pad_to_multiples,
    recomputable,
)
from mtl_jax.nn.conv import check_map
from mtl_jax.nn.init import trunc_normal
from mtl_jax.runtime.published_files import HubFile

PATCH = 4
EPSILON = 1e-5
HIDDEN = 4  # hidden units of a perceptron for each channel


@dataclass(frozen=True)
class Variant:
    """The sizes of one Swin Transformer.

    Attributes:
        width: Number of channels of the first stage; each of the others has twice as many as the one before.
        heads: Number of attention heads in each stage.
        blocks: Number of blocks in each stage.
        window: Side of the windows in tokens.
        drop_path: Probability in training that the last block drops a residual branch of an image. It grows linearly
            from 0 in the first block.
    """

    width: int
    heads: tuple[int, int, int, int]
    blocks: tuple[int, int, int, int]
    window: int = 7
    drop_path: float = 0.1

    @property
    def channels(self) -> tuple[int, ...]:
        """Number of channels of each stage."""
        return tuple(self.width * 2**stage for stage in range(len(self.blocks)))


VARIANTS = {
    "swin_tiny_patch4_window7": Variant(96, (3, 6, 12, 24), (2, 2, 6, 2)),
    "swin_small_patch4_window7": Variant(96, (3, 6, 12, 24), (2, 2, 18, 2)),
    "swin_base_patch4_window7": Variant(128, (4, 8, 16, 32), (2, 2, 18, 2)),
    "swin_base_patch4_window12": Variant(128, (4, 8, 16, 32), (2, 2, 18, 2), window=12),
    "swin_large_patch4_window7": Variant(192, (6, 12, 24, 48), (2, 2, 18, 2)),
    "swin_large_patch4_window12": Variant(192, (6, 12, 24, 48), (2, 2, 18, 2), window=12),
}


class PatchEmbed(nnx.Module):
    """Images to normalised tokens, after zero padding to whole patches: `[B, H, W, 3] -> [B, H/4, W/4, C]`.

    Args:
        features: Number of channels C.
        rngs: Source of the initial weights.

    Raises:
        ValueError: The images of a call are not `[B, H, W, 3]`.
    """

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.proj = PatchProjection(3, features, PATCH, rngs=rngs)
        self.norm = LayerNorm(features, epsilon=EPSILON)

    @recomputable
    def __call__(self, images: jax.Array) -> jax.Array:
        check_map(images, 3)
        return self.norm(self.proj(pad_to_multiples(images, (PATCH, PATCH))))


class PatchMerging(nnx.Module):
    """A norm and a linear layer over the tokens of 2x2 patches: `[B, H, W, C] -> [B, H/2, W/2, 2C]`.

    Odd sides are padded with zeros. The layers take the four tokens column by column.

    Args:
        features: Number of channels C.
        rngs: Source of the initial weights.
    """

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.norm = LayerNorm(4 * features, epsilon=EPSILON)
        self.reduction = Linear(4 * features, 2 * features, use_bias=False, kernel_init=trunc_normal, rngs=rngs)

    @recomputable
    def __call__(self, x: jax.Array) -> jax.Array:
        x = pad_to_multiples(x, (2, 2))
        batch, height, width, features = x.shape
        pairs = x.reshape(batch, height // 2, 2, width // 2, 2, features)
        merged = jnp.moveaxis(pairs, 2, 4).reshape(batch, height // 2, width // 2, 4 * features)
        return self.reduction(self.norm(merged))


class Block(nnx.Module):
    """x += attn(norm1(x)), then x += mlp(norm2(x)) (eq. 3): `[B, H, W, C] -> [B, H, W, C]`.

    Args:
        features: Number of channels C.
        heads: Number of attention heads.
        window: Side of the windows in tokens.
        shifted: True to shift the windows.
        drop_path: Probability that a residual branch of an image is dropped in training.
        rngs: Source of the initial weights.
    """

    def __init__(self, features: int, heads: int, window: int, *, shifted: bool, drop_path: float, rngs: nnx.Rngs):
        self.shifted = shifted
        self.norm1 = LayerNorm(features, epsilon=EPSILON)
        self.attn = WindowAttention(features, heads, window, rngs=rngs)
        self.norm2 = LayerNorm(features, epsilon=EPSILON)
        self.mlp = Mlp(features, HIDDEN * features, rngs=rngs)
        self.drop_path = DropPath(drop_path)

    @recomputable
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.drop_path(self.attn(self.norm1(x), self.shifted))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class SwinTransformer(nnx.Module):
    """A Swin Transformer without its classifier and the norm before it: what a file of published weights holds.

    Args:
        variant: Sizes of the transformer.
        rngs: Source of the initial weights.
    """

    def __init__(self, variant: Variant, *, rngs: nnx.Rngs):
        self.patch_embed = PatchEmbed(variant.width, rngs=rngs)
        rates = drop_path_rates(variant.drop_path, variant.blocks)

        def stage(number: int, width: int) -> Stage:
            heads, window = variant.heads[number], variant.window
            merging = PatchMerging(width // 2, rngs=rngs) if number else None
            blocks = [
                Block(width, heads, window, shifted=i % 2 == 1, drop_path=rate, rngs=rngs)
                for i, rate in enumerate(rates[number])
            ]
            return Stage(merging, blocks)

        self.layers = nnx.List([stage(number, width) for number, width in enumerate(variant.channels)])


class Swin(Hierarchy):
    """Swin Transformer without its classifier, and a norm of each map.

    `[B, H, W, 3] -> ([B, H/4, W/4, C], [B, H/8, W/8, 2C], [B, H/16, W/16, 4C], [B, H/32, W/32, 8C])`. Images of any
    size are padded to whole patches. Sides that do not divide evenly are rounded up at every halving.

    Args:
        variant: A key of `VARIANTS`.
        rngs: Source of the initial weights.
    """

    def __init__(self, variant: str, *, rngs: nnx.Rngs):
        sizes = VARIANTS[variant]
        encoder = SwinTransformer(sizes, rngs=rngs)
        super().__init__(encoder, stem="patch_embed", groups="layers", channels=sizes.channels, epsilon=EPSILON)

    def published_arrays(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return published(arrays)


for _name, _variant in VARIANTS.items():
    _side = 384 if _variant.window == 12 else 224  # of the trained images
    for _weights, _tag in (("imagenet", "ms_in22k_ft_in1k"), ("imagenet22k", "ms_in22k")):
        register_weights(_name, _weights, HubFile(f"timm/{_name}_{_side}.{_tag}"), license="MIT")


@register(*VARIANTS)
def build_swin(name: str, *, image_size: tuple[int, int] | None = None, rngs: nnx.Rngs) -> Swin:
    """Builds the Swin Transformer of a name in `VARIANTS`, for images of any size."""
    return Swin(name, rngs=rngs)


# The classifier, and what follows from the size of a window.
_LEFT_OUT = re.compile(r"(?:norm|head)\..*|.*\.(?:attn_mask|relative_position_index)")
_TIMM_FEATURES = (r"^layers_(\d)\.", r"layers.\1.")
# Swin's own code halves the resolution at the end of a stage, timm and this module at the beginning of the next one.
_ORIGINAL = (r"^layers\.(\d)\.downsample\.", lambda found: f"layers.{int(found[1]) + 1}.downsample.")


def published(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays of a file from timm, or from Swin's own code, under the names of `SwinTransformer`."""
    original = any(name.startswith("layers.0.downsample.") for name in arrays)
    return renamed(arrays, _LEFT_OUT, [_TIMM_FEATURES, *([_ORIGINAL] if original else [])])
