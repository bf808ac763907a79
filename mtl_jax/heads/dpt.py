"""DPT head (arXiv 2103.13413), as DINOv2 has it: tokens of four blocks are reassembled to maps and fused."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_jax.heads.registry import register
from mtl_jax.nn import (
    BlockTokens,
    Conv,
    Linear,
    Sequential,
    Tokens,
    double_aligned,
    recomputable,
    resize_layers,
    resize_like,
)
from mtl_jax.nn.init import he_normal_fan_out

LEVELS = 4


def _ignore(tokens: Tokens) -> jax.Array:
    return tokens.patches


def _add(tokens: Tokens) -> jax.Array:
    return tokens.patches + tokens.class_token[:, None, None]


def _concatenate(tokens: Tokens) -> jax.Array:
    classes = jnp.broadcast_to(tokens.class_token[:, None, None], tokens.patches.shape)
    return jnp.concatenate([tokens.patches, classes], axis=-1)


def _gelu(x: jax.Array) -> jax.Array:
    return nnx.gelu(x, approximate=False)


# {readout: function from tokens to a map; "project" has layers behind it} (eq. 4, 5 and 6)
_READOUTS: dict[str, Callable[[Tokens], jax.Array]] = {"ignore": _ignore, "add": _add, "project": _concatenate}


class ConvModule(nnx.Module):
    """A convolution below the name `conv`, which published weights have: `[B, H, W, in] -> [B, H, W, out]`.

    The kernel starts from He's normal distribution and the bias from 0.

    Args:
        in_features: Number of input channels.
        out_features: Number of output channels.
        kernel_size: Height and width of the kernel.
        use_bias: True to add a bias.
        rngs: Source of the initial weights.
    """

    def __init__(self, in_features: int, out_features: int, kernel_size: int, *, use_bias: bool, rngs: nnx.Rngs):
        init = he_normal_fan_out
        self.conv = Conv(in_features, out_features, kernel_size, use_bias=use_bias, kernel_init=init, rngs=rngs)
        if self.conv.bias is not None:
            self.conv.bias.set_value(jnp.zeros_like(self.conv.bias[...]))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.conv(x)


class Reassemble(nnx.Module):
    """Tokens of four blocks to maps of four resolutions (sec. 3.1, "Reassemble").

    The readout brings the class token into the patch tokens, a conv1x1 changes their number of channels, and a layer
    the resolution.

    Args:
        features: Number of channels C of the tokens.
        channels: Number of channels of each map, finest first.
        readout: What becomes of the class token.
        rngs: Source of the initial weights.
    """

    def __init__(self, features: int, channels: Sequence[int], readout: str, *, rngs: nnx.Rngs):
        self.readout = readout
        self.readout_projects = nnx.List(
            [
                Sequential([Linear(2 * features, features, rngs=rngs), _gelu] if readout == "project" else [])
                for _ in channels
            ]
        )
        self.projects = nnx.List([ConvModule(features, width, 1, use_bias=True, rngs=rngs) for width in channels])
        self.resize_layers = resize_layers(channels, rngs=rngs)

    def __call__(self, levels: Sequence[Tokens]) -> list[jax.Array]:
        """(tokens `[B, h, w, C]` and `[B, C]`, ...) -> maps `[B, 4h, 4w, C0]`, `[B, 2h, 2w, C1]`, `[B, h, w, C2]`,
        `[B, h/2, w/2, C3]`
        """
        maps = []
        layers = zip(self.readout_projects, self.projects, self.resize_layers, strict=True)
        for tokens, (readout, project, resize) in zip(levels, layers, strict=True):
            maps.append(resize(project(readout(_READOUTS[self.readout](tokens)))))
        return maps


class ResidualUnit(nnx.Module):
    """Residual unit before its activation: x + conv3x3(ReLU(conv3x3(ReLU(x)))), `[B, H, W, F] -> [B, H, W, F]`.

    Args:
        features: Number of channels F.
        rngs: Source of the initial weights.
    """

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.conv1 = ConvModule(features, features, 3, use_bias=False, rngs=rngs)
        self.conv2 = ConvModule(features, features, 3, use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.conv2(nnx.relu(self.conv1(nnx.relu(x))))


class FeatureFusion(nnx.Module):
    """Fusion of the map from the coarser resolutions with the next finer one, and doubling (fig. 1, right).

    Args:
        features: Number of channels F.
        coarsest: True for the first fusion, which takes the coarsest map alone.
        rngs: Source of the initial weights.
    """

    def __init__(self, features: int, *, coarsest: bool, rngs: nnx.Rngs):
        self.res_conv_unit1: Any = None if coarsest else ResidualUnit(features, rngs=rngs)
        self.res_conv_unit2 = ResidualUnit(features, rngs=rngs)
        self.project = ConvModule(features, features, 1, use_bias=True, rngs=rngs)

    def __call__(self, x: jax.Array, skip: jax.Array | None = None) -> jax.Array:
        """`[B, H, W, F]`, `[B, H', W', F]` -> `[B, 2H, 2W, F]`, where H' and W' are H and W, or 1 less."""
        if skip is not None:
            x = x + self.res_conv_unit1(resize_like(skip, x))
        # The paper doubles the map and projects then. The results are equal, since the projection is linear and the
        # weights of an interpolation add up to 1.
        return double_aligned(self.project(self.res_conv_unit2(x)))


class Output(nnx.Module):
    """The convolutions behind the fused map: `[B, H, W, F] -> [B, 2H, 2W, num_outputs]`.

    Args:
        features: Number of channels F of the map.
        hidden: Number of channels before the last layer.
        num_outputs: Number of logit channels.
        rngs: Source of the initial weights.
    """

    def __init__(self, features: int, hidden: int, num_outputs: int, *, rngs: nnx.Rngs):
        self.head = Sequential(
            [
                Conv(features, features // 2, 3, use_bias=True, rngs=rngs),
                double_aligned,
                Conv(features // 2, hidden, 3, use_bias=True, rngs=rngs),
                nnx.relu,
                Conv(hidden, num_outputs, 1, use_bias=True, rngs=rngs),
            ]
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(x)


@register("dpt")
class DPTHead(nnx.Module):
    """DPT head: reassembles the tokens of four blocks to maps and fuses them from the coarsest to the finest.

    The logits of patches of p pixels have the stride p/16: with patches of 14 pixels they are finer than the image.
    Names of layers are those of the published depth heads of DINOv2.

    Args:
        channels: Number of channels C of the tokens of each block, the first block first.
        num_outputs: Number of logit channels.
        features: Number of channels F of the fused maps.
        hidden: Number of channels before the last layer.
        readout: What becomes of the class token: "project" concatenates it with each patch token and projects both to
            C channels, "add" adds it to them, "ignore" drops it.
        final_norm: True for tokens after the final norm of the transformer.
        rngs: Source of the initial weights.

    Raises:
        ValueError: There are not four blocks of tokens.
    """

    reads_tokens: ClassVar[bool] = True

    def __init__(
        self,
        channels: Sequence[int],
        num_outputs: int,
        *,
        features: int = 256,
        hidden: int = 32,
        readout: Literal["project", "add", "ignore"] = "project",
        final_norm: bool = False,
        rngs: nnx.Rngs,
    ):
        if len(channels) != LEVELS:
            raise ValueError(f"the DPT head reads the tokens of {LEVELS} blocks; the backbone has {len(channels)}")
        width = channels[-1]
        widths = (width // 8, width // 4, width // 2, width)
        self.reassemble_blocks = Reassemble(width, widths, readout, rngs=rngs)
        self.convs = nnx.List([ConvModule(each, features, 3, use_bias=False, rngs=rngs) for each in widths])
        self.fusion_blocks = nnx.List([FeatureFusion(features, coarsest=i == 0, rngs=rngs) for i in range(LEVELS)])
        self.project = ConvModule(features, features, 3, use_bias=True, rngs=rngs)
        self.conv_depth = Output(features, hidden, num_outputs, rngs=rngs)
        self.final_norm = final_norm

    @recomputable
    def __call__(self, blocks: Sequence[BlockTokens]) -> jax.Array:
        """(tokens `[B, h, w, C]` and `[B, C]`, ...) -> `[B, 16h, 16w, num_outputs]`; odd h and w are rounded up to
        even ones.
        """
        maps = self.reassemble_blocks([block.normed if self.final_norm else block.raw for block in blocks])
        skips = [conv(x) for conv, x in zip(self.convs, maps, strict=True)]
        coarsest, *finer = reversed(skips)
        first, *others = self.fusion_blocks
        fused = first(coarsest)
        for fusion, skip in zip(others, finer, strict=True):
            fused = fusion(fused, skip)
        return self.conv_depth(nnx.relu(self.project(fused)))
