"""ResNet (arXiv 1512.03385), plain or dilated to an output stride of 8 (arXiv 1706.05587, sec. 3.1)."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import jax
from flax import nnx

from mtl_jax.backbones.base import Backbone, Maps
from mtl_jax.backbones.registry import register
from mtl_jax.backbones.weights_table import register_weights
from mtl_jax.nn import BasicBlock, BatchNorm, Bottleneck, Conv, Sequential, max_pool_stem
from mtl_jax.nn.init import he_normal_fan_out
from mtl_jax.nn.remat import recompute
from mtl_jax.runtime.published_files import Address


@dataclass(frozen=True)
class Variant:
    """The sizes of one ResNet.

    Attributes:
        block: Class of the residual blocks.
        blocks: Number of blocks in each of layer1 to layer4.
        strides: Stride of the first block in each of layer1 to layer4.
        dilations: Dilation of the 3x3 convolutions in each of layer1 to layer4. The first 3x3 convolution of a layer,
            which has the stride in the plain network, keeps the dilation of the layer before.
        width: Number of channels of the stem; layer1 to layer4 compute with 1, 2, 4 and 8 times as many.
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
    """ResNet without its classifier.

    A plain ResNet returns four maps, at 1/4, 1/8, 1/16 and 1/32 of the image's resolution. A dilated one returns a
    single map at 1/8. Sides that do not divide evenly are rounded up at every halving.

    Args:
        variant: A key of `VARIANTS`.
        rngs: Source of the initial weights.

    Attributes:
        channels: Number of channels of each map that heads read, finest first.
        widths: Number of channels of the outputs of layer1 to layer4.
        strides: Strides of layer1 to layer4.
    """

    stages = ("conv", *LAYERS)
    layers = (("conv1", "bn1"), *((layer,) for layer in LAYERS))

    def __init__(self, variant: str, *, rngs: nnx.Rngs):
        sizes = VARIANTS[variant]
        inner = [sizes.width * 2**i for i in range(4)]
        self.strides = sizes.strides
        self.widths = tuple(width * sizes.block.expansion for width in inner)
        self.dilated = sizes.dilations[-1] > 1
        self.channels = self.widths[-1:] if self.dilated else self.widths

        def layer(i: int, in_features: int, first_dilation: int) -> Sequential:
            block = partial(
                sizes.block,
                features=inner[i],
                dilation=sizes.dilations[i],
                kernel_init=he_normal_fan_out,
                rngs=rngs,
            )
            first = block(in_features, stride=sizes.strides[i], first_dilation=first_dilation)
            return Sequential([first, *(block(self.widths[i]) for _ in range(sizes.blocks[i] - 1))])

        self.conv1 = Conv(3, sizes.width, 7, stride=2, kernel_init=he_normal_fan_out, rngs=rngs)
        self.bn1 = BatchNorm(sizes.width)
        self.layer1 = layer(0, sizes.width, first_dilation=1)
        self.layer2 = layer(1, self.widths[0], first_dilation=sizes.dilations[0])
        self.layer3 = layer(2, self.widths[1], first_dilation=sizes.dilations[1])
        self.layer4 = layer(3, self.widths[2], first_dilation=sizes.dilations[2])

    def stage_channels(self, stage: str) -> tuple[int, ...]:
        return self.conv1.kernel.shape[-1:] if stage == "conv" else (self.widths[LAYERS.index(stage)],)

    def forward_stage(self, stage: str, maps: Maps) -> Maps:
        (x,) = maps
        if stage == "conv":
            return (max_pool_stem(nnx.relu(self.bn1(self.conv1(x)))),)
        return self._split_stage(stage, x)[1:]

    def split_stage(self, layer: str, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Computes the maps before and after the last block of a layer.

        Args:
            layer: One of layer1 to layer4.
            x: `[B, H, W, C]` output of the stage before.

        Returns:
            Two maps of the same shape, the second of which is the layer's output.
        """
        if layer in self.remat:
            return recompute(lambda backbone, x: backbone._split_stage(layer, x), self, x)
        return self._split_stage(layer, x)

    def _split_stage(self, layer: str, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        layers = (self.layer1, self.layer2, self.layer3, self.layer4)
        *blocks, last = layers[LAYERS.index(layer)]
        for block in blocks:
            x = block(x)
        return x, last(x)

    def select(self, outputs: Mapping[str, Maps]) -> Maps:
        layers = LAYERS[-1:] if self.dilated else LAYERS
        return tuple(itertools.chain.from_iterable(outputs[layer] for layer in layers))


_TORCHVISION = "https://download.pytorch.org/models/"
_WEIGHTS = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
    "resnet152": "resnet152-394f9c45.pth",
}
for _name in VARIANTS:  # dilation changes no parameter
    _file = Address(_TORCHVISION + _WEIGHTS[_name.removesuffix("_dilated")])
    register_weights(_name, "imagenet", _file, license="BSD-3-Clause")


@register(*VARIANTS)
def build_resnet(name: str, *, image_size: tuple[int, int] | None = None, rngs: nnx.Rngs) -> ResNet:
    """Builds the ResNet of a name in `VARIANTS`, for images of any size."""
    return ResNet(name, rngs=rngs)
