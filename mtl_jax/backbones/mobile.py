"""Networks of inverted residual blocks: what MobileNetV2, MobileNetV3 and EfficientNet-Lite have in common."""

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from operator import mul
from typing import ClassVar

import jax
from flax import nnx

from mtl_jax.backbones.base import Backbone, Maps
from mtl_jax.backbones.renormalise import IMAGENET_MEAN, IMAGENET_STD, Channels, renormalised
from mtl_jax.nn import BatchNorm, Conv, InvertedResidual, SeparableConv, Sequential
from mtl_jax.nn.init import he_normal_fan_out
from mtl_jax.nn.inverted_residual import Activation
from mtl_jax.nn.norm import EPSILON

TIMM = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/"  # folder of timm's weights
STEM = "conv"
STAGES = ("stage1", "stage2", "stage3", "stage4")  # at 1/4, 1/8, 1/16 and 1/32 of the image's resolution


@dataclass(frozen=True)
class Block:
    """The sizes of one block.

    Attributes:
        kernel_size: Side of the depthwise kernels.
        hidden: Number of channels of the depthwise convolution. A block that has as many input channels does without
            the first conv1x1.
        features: Number of output channels.
        activation: Activation after the depthwise convolution, and after the first conv1x1.
        stride: Stride of the depthwise convolution.
        squeeze: Number of hidden units of squeeze-and-excitation; 0 = none.
    """

    kernel_size: int
    hidden: int
    features: int
    activation: Activation
    stride: int = 1
    squeeze: int = 0


@dataclass(frozen=True)
class Variant:
    """The sizes of one network.

    Attributes:
        stem: Number of channels of the first convolution, a conv3x3 at stride 2.
        groups: Blocks in the groups in which published weights number them.
        activation: Activation after the first convolution, and after the last one.
        last: Number of channels of a conv1x1 after the blocks; 0 = none.
        same_padding: True for networks from TensorFlow, whose strided convolutions pad as "SAME" does.
        epsilon: What batch norms add to the variance.
        mean: Mean of the pixels (0 to 1, RGB) that the published weights were trained with.
        std: Standard deviation of the pixels likewise.
    """

    stem: int
    groups: tuple[tuple[Block, ...], ...]
    activation: Activation
    last: int = 0
    same_padding: bool = False
    epsilon: float = EPSILON
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD

    def groups_of(self, stage: str) -> list[int]:
        """Returns the numbers of the groups of a stage: all at its resolution. The stem has those before 1/4."""
        names = (STEM, *STAGES)
        strides = itertools.accumulate((math.prod(block.stride for block in group) for group in self.groups), mul)
        at = [names[int(math.log2(stride))] for stride in strides] + [names[-1]] * bool(self.last)
        return [number for number, name in enumerate(at) if name == stage]

    def width_of(self, stage: str) -> int:
        """Returns the number of channels after a stage."""
        widths = [group[-1].features for group in self.groups] + [self.last]
        return widths[numbers[-1]] if (numbers := self.groups_of(stage)) else self.stem


class MobileNet(Backbone):
    """A convolution and groups of inverted residual blocks, without the classifier and the convolution before it.

    `[B, H, W, 3]` to four maps, at 1/4, 1/8, 1/16 and 1/32 of the image's resolution: the last ones before it changes.
    Sides that do not divide evenly are rounded up at every halving. Submodules have timm's names.

    Args:
        variant: The sizes.
        rngs: Source of the initial weights.

    Attributes:
        channels: Number of channels of the four maps, finest first.
    """

    stages = (STEM, *STAGES)
    left_out = re.compile(r"(?:conv_head|bn2|classifier)\..*")
    norm_inputs: ClassVar[Mapping[str, str]] = {"bn1": "conv_stem"}

    def __init__(self, variant: Variant, *, rngs: nnx.Rngs):
        self.variant = variant
        self.conv_stem = Conv(
            3,
            variant.stem,
            3,
            stride=2,
            same_padding=variant.same_padding,
            kernel_init=he_normal_fan_out,
            rngs=rngs,
        )
        self.bn1 = BatchNorm(variant.stem, epsilon=variant.epsilon)
        width, groups = variant.stem, []
        for group in variant.groups:
            blocks = []
            for block in group:
                blocks.append(_block(width, block, variant, rngs))
                width = block.features
            groups.append(Sequential(blocks))
        if variant.last:
            groups.append(Sequential([_LastConv(width, variant, rngs=rngs)]))
        self.blocks = nnx.List(groups)
        self.channels = tuple(variant.width_of(stage) for stage in STAGES)
        self.layers = (("conv_stem", "bn1"), *((f"blocks.{number}",) for number in range(len(groups))))

    def stage_channels(self, stage: str) -> tuple[int, ...]:
        return (self.variant.width_of(stage),)

    def forward_stage(self, stage: str, maps: Maps) -> Maps:
        (x,) = maps
        if stage == STEM:
            images = renormalised(x, self.variant.mean, self.variant.std)
            x = self.variant.activation(self.bn1(self.conv_stem(images)))
        for number in self.variant.groups_of(stage):
            x = self.blocks[number](x)
        return (x,)

    def select(self, outputs: Mapping[str, Maps]) -> Maps:
        return tuple(outputs[stage][0] for stage in STAGES)


def _block(in_features: int, block: Block, variant: Variant, rngs: nnx.Rngs) -> SeparableConv | InvertedResidual:
    separable = block.hidden == in_features
    kind = partial(SeparableConv, in_features) if separable else partial(InvertedResidual, in_features, block.hidden)
    return kind(
        block.features,
        kernel_size=block.kernel_size,
        stride=block.stride,
        activation=block.activation,
        squeeze=block.squeeze,
        same_padding=variant.same_padding,
        epsilon=variant.epsilon,
        rngs=rngs,
    )


class _LastConv(nnx.Module):
    """conv1x1, BN and activation behind the blocks: `[B, H, W, in] -> [B, H, W, last]`."""

    norm_inputs: ClassVar[Mapping[str, str]] = {"bn1": "conv"}

    def __init__(self, in_features: int, variant: Variant, *, rngs: nnx.Rngs):
        self.conv = Conv(in_features, variant.last, 1, kernel_init=he_normal_fan_out, rngs=rngs)
        self.bn1 = BatchNorm(variant.last, epsilon=variant.epsilon)
        self.activation = variant.activation

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.activation(self.bn1(self.conv(x)))


def rounded(channels: float) -> int:
    """Rounds a number of channels to a multiple of 8 that is not below 90 % of it, as the papers' code does."""
    multiple = max(8, int(channels + 4) // 8 * 8)
    return multiple + 8 if multiple < 0.9 * channels else multiple


def rows_to_groups(
    rows: Iterable[tuple[int, int, int, int, int]], stem: int, activation: Activation
) -> tuple[tuple[Block, ...], ...]:
    """Returns groups of blocks that all widen their input by one factor, as MobileNetV2 and EfficientNet have them.

    Args:
        rows: A row for each group: side of the kernels, factor, number of output channels, number of blocks and stride
            of the first block.
        stem: Number of input channels of the first group.
        activation: Activation of the blocks.
    """
    width, groups = stem, []
    for kernel_size, factor, features, number, stride in rows:
        blocks = []
        for i in range(number):
            blocks.append(Block(kernel_size, factor * width, features, activation, 1 if i else stride))
            width = features
        groups.append(tuple(blocks))
    return tuple(groups)
