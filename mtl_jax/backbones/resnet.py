"""ResNet (arXiv 1512.03385), plain or dilated to an output stride of 8 (arXiv 1706.05587, sec. 3.1)."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import jax
from flax import nnx
from flax.typing import Dtype

from mtl_jax.backbones.base import Backbone, Maps
from mtl_jax.nn import BasicBlock, BatchNorm, Bottleneck, Conv, Sequential, max_pool_stem
from mtl_jax.nn.init import he_normal_fan_out


@dataclass(frozen=True)
class Variant:
    """One ResNet.

    Attributes:
        block: residual block.
        blocks: number of blocks in layer1 to layer4.
        strides: of the first block of layer1 to layer4.
        dilations: of the 3x3 convolutions of layer1 to layer4. The first one of a layer, which has the stride in the
            plain network, still has the dilation of the layer before.
        width: of the stem; layer1 to layer4 compute with 1, 2, 4, 8 times as many channels.
    """

    block: type[BasicBlock] | type[Bottleneck]
    blocks: tuple[int, int, int, int]
    strides: tuple[int, int, int, int] = (1, 2, 2, 2)
    dilations: tuple[int, int, int, int] = (1, 1, 1, 1)
    width: int = 64


_PLAIN = {
    "resnet18": Variant(BasicBlock, (2, 2, 2, 2)),
    "resnet34": Variant(BasicBlock, (3, 4, 6, 3)),
    "resnet50": Variant(Bottleneck, (3, 4, 6, 3)),
    "resnet101": Variant(Bottleneck, (3, 4, 23, 3)),
    "resnet152": Variant(Bottleneck, (3, 8, 36, 3)),
}
VARIANTS = _PLAIN | {
    f"{name}_dilated": replace(variant, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
    for name, variant in _PLAIN.items()
}
LAYERS = ("layer1", "layer2", "layer3", "layer4")


class ResNet(Backbone):
    """A pyramid of four maps at 1/4 to 1/32 of the image's resolution; where it is dilated, one map at 1/8.

    Sides that do not divide evenly are rounded up at every halving.

    Attributes:
        channels: widths of the maps, finest first.
        strides: of layer1 to layer4.
    """

    stages = ("conv", *LAYERS)

    def __init__(self, variant: str, *, dtype: Dtype | None = None, rngs: nnx.Rngs):
        numbers = VARIANTS[variant]
        self.strides = numbers.strides
        inner = [numbers.width * 2**i for i in range(4)]
        self.widths = tuple(width * numbers.block.expansion for width in inner)
        self.dilated = numbers.dilations[-1] > 1
        self.channels = self.widths[-1:] if self.dilated else self.widths
        self.conv1 = Conv(3, numbers.width, 7, stride=2, kernel_init=he_normal_fan_out, dtype=dtype, rngs=rngs)
        self.bn1 = BatchNorm(numbers.width, dtype=dtype)
        inputs = (numbers.width, *self.widths)
        before = (1, *numbers.dilations)
        for i, layer in enumerate(LAYERS):
            blocks = [
                numbers.block(
                    self.widths[i] if later else inputs[i],
                    inner[i],
                    stride=1 if later else numbers.strides[i],
                    dilation=numbers.dilations[i],
                    first_dilation=None if later else before[i],
                    kernel_init=he_normal_fan_out,
                    dtype=dtype,
                    rngs=rngs,
                )
                for later in range(numbers.blocks[i])
            ]
            setattr(self, layer, Sequential(blocks))

    def stage_channels(self, stage: str) -> tuple[int, ...]:
        return self.conv1.kernel.shape[-1:] if stage == "conv" else (self.widths[LAYERS.index(stage)],)

    def _run_stage(self, stage: str, maps: Maps) -> Maps:
        if stage == "conv":
            return (max_pool_stem(nnx.relu(self.bn1(self.conv1(maps[0])))),)
        return self._split_stage(stage, maps[0])[1:]

    def split_stage(self, layer: str, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The maps before and after the last block of one of layer1 to layer4."""
        return self.run(layer, lambda backbone, x: backbone._split_stage(layer, x), self, x)

    def _split_stage(self, layer: str, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        *blocks, last = getattr(self, layer)
        for block in blocks:
            x = block(x)
        return x, last(x)

    def select(self, outputs: Mapping[str, Maps]) -> Maps:
        layers = LAYERS[-1:] if self.dilated else LAYERS
        return tuple(itertools.chain.from_iterable(outputs[layer] for layer in layers))
