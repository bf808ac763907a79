"""ConvNeXt (arXiv 2201.03545): residual blocks of a depthwise convolution and a perceptron."""

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
    DepthwiseConv,
    DropPath,
    LayerNorm,
    Mlp,
    PatchProjection,
    Sequential,
    drop_path_rates,
    recomputable,
)
from mtl_jax.nn.conv import check_map
from mtl_jax.nn.init import trunc_normal
from mtl_jax.nn.per_channel import per_channel
from mtl_jax.runtime.published_files import HubFile

STRIDE = 32  # of the coarsest map
KERNEL = 7
EPSILON = 1e-6
HIDDEN = 4  # hidden units of a perceptron for each channel


@dataclass(frozen=True)
class Variant:
    """The sizes of one ConvNeXt.

    Attributes:
        channels: Number of channels of each stage.
        blocks: Number of blocks in each stage.
        layer_scale: Initial value of the layer scale.
        drop_path: Probability in training that the last block drops its residual branch of an image. It grows linearly
            from 0 in the first block.
    """

    channels: tuple[int, int, int, int]
    blocks: tuple[int, int, int, int]
    layer_scale: float = 1e-6
    drop_path: float = 0.0


VARIANTS = {
    "convnext_tiny": Variant((96, 192, 384, 768), (3, 3, 9, 3)),
    "convnext_small": Variant((96, 192, 384, 768), (3, 3, 27, 3)),
    "convnext_base": Variant((128, 256, 512, 1024), (3, 3, 27, 3)),
    "convnext_large": Variant((192, 384, 768, 1536), (3, 3, 27, 3)),
}


class Stem(Sequential):
    """A conv4x4 at stride 4, and a norm over the channels: `[B, H, W, 3] -> [B, H/4, W/4, C]`, rounded down.

    Args:
        features: Number of channels C.
        rngs: Source of the initial weights.

    Raises:
        ValueError: The images of a call are not `[B, H, W, 3]`, or have a side below 32 pixels.
    """

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        conv = PatchProjection(3, features, 4, kernel_init=trunc_normal, rngs=rngs)
        super().__init__([conv, LayerNorm(features, epsilon=EPSILON)])

    @recomputable
    def __call__(self, images: jax.Array) -> jax.Array:
        check_map(images, 3)
        height, width = images.shape[1:3]
        if min(height, width) < STRIDE:
            raise ValueError(
                f"images of {height}x{width} pixels leave no pixel of ConvNeXt's map at stride {STRIDE}; resize or pad "
                f"them to {STRIDE}x{STRIDE} or more"
            )
        return super().__call__(images)


class Downsample(Sequential):
    """A norm over the channels and a conv2x2 at stride 2: `[B, H, W, C] -> [B, H/2, W/2, C']`, rounded down.

    Args:
        in_features: Number of channels C.
        out_features: Number of channels C'.
        rngs: Source of the initial weights.
    """

    def __init__(self, in_features: int, out_features: int, *, rngs: nnx.Rngs):
        conv = PatchProjection(in_features, out_features, 2, kernel_init=trunc_normal, rngs=rngs)
        super().__init__([LayerNorm(in_features, epsilon=EPSILON), conv])

    @recomputable
    def __call__(self, x: jax.Array) -> jax.Array:
        return super().__call__(x)


class Block(nnx.Module):
    """x + gamma * mlp(norm(conv_dw(x))) (fig. 4): `[B, H, W, C] -> [B, H, W, C]`.

    Args:
        features: Number of channels C.
        layer_scale: Initial value of gamma, a factor for each channel.
        drop_path: Probability that the residual branch of an image is dropped in training.
        rngs: Source of the initial weights.
    """

    def __init__(self, features: int, *, layer_scale: float, drop_path: float, rngs: nnx.Rngs):
        self.conv_dw = DepthwiseConv(features, KERNEL, use_bias=True, kernel_init=trunc_normal, rngs=rngs)
        self.norm = LayerNorm(features, epsilon=EPSILON)
        self.mlp = Mlp(features, HIDDEN * features, rngs=rngs)
        self.gamma = nnx.Param(jnp.full((features,), layer_scale, jnp.float32))
        self.drop_path = DropPath(drop_path)

    @recomputable
    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.mlp(self.norm(self.conv_dw(x)))
        return x + self.drop_path(y * per_channel(self.gamma[...], y))


class Encoder(nnx.Module):
    """A ConvNeXt without its classifier and the norm before it: what a file of published weights holds.

    Args:
        variant: Sizes of the network.
        rngs: Source of the initial weights.
    """

    def __init__(self, variant: Variant, *, rngs: nnx.Rngs):
        self.stem = Stem(variant.channels[0], rngs=rngs)
        rates = drop_path_rates(variant.drop_path, variant.blocks)

        def stage(number: int, width: int) -> Stage:
            downsample = Downsample(variant.channels[number - 1], width, rngs=rngs) if number else None
            scale = variant.layer_scale
            blocks = [Block(width, layer_scale=scale, drop_path=rate, rngs=rngs) for rate in rates[number]]
            return Stage(downsample, blocks)

        self.stages = nnx.List([stage(number, width) for number, width in enumerate(variant.channels)])


class ConvNeXt(Hierarchy):
    """ConvNeXt without its classifier, and a norm of each map.

    `[B, H, W, 3] -> ([B, H/4, W/4, C0], [B, H/8, W/8, C1], [B, H/16, W/16, C2], [B, H/32, W/32, C3])`, for images of
    any size from 32x32 on. Sides that do not divide evenly are rounded down, as in timm: the rows and columns at their
    ends are left out.

    Args:
        variant: A key of `VARIANTS`.
        rngs: Source of the initial weights.
    """

    def __init__(self, variant: str, *, rngs: nnx.Rngs):
        sizes = VARIANTS[variant]
        encoder = Encoder(sizes, rngs=rngs)
        super().__init__(encoder, stem="stem", groups="stages", channels=sizes.channels, epsilon=EPSILON)

    def published_arrays(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return published(arrays)


for _name in VARIANTS:
    for _weights, _tag in (("imagenet", "fb_in22k_ft_in1k"), ("imagenet22k", "fb_in22k")):
        register_weights(_name, _weights, HubFile(f"timm/{_name}.{_tag}"), license="Apache-2.0")


@register(*VARIANTS)
def build_convnext(name: str, *, image_size: tuple[int, int] | None = None, rngs: nnx.Rngs) -> ConvNeXt:
    """Builds the ConvNeXt of a name in `VARIANTS`, for images of any size from 32x32 on."""
    return ConvNeXt(name, rngs=rngs)


_LEFT_OUT = re.compile(r"(?:norm|head)\..*")
_NAMES = (
    (r"^(stem|stages)_(\d)\.", r"\1.\2."),  # timm's features
    # ConvNeXt's own code.
    (r"^downsample_layers\.0\.", "stem."),
    (r"^downsample_layers\.(\d)\.", r"stages.\1.downsample."),
    (r"^stages\.(\d)\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.pwconv([12])\.", r".mlp.fc\1."),
)


def published(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays of a file from timm, or from ConvNeXt's own code, under the names of `Encoder`."""
    return renamed(arrays, _LEFT_OUT, _NAMES)
