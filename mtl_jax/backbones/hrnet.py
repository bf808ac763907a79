"""HRNet (arXiv 1908.07919): four branches at 1/4, 1/8, 1/16 and 1/32 of the image's resolution."""

from dataclasses import dataclass

import jax
from flax import nnx
from flax.typing import Dtype

from mtl_jax.backbones.base import Backbone, Maps
from mtl_jax.nn import BasicBlock, BatchNorm, Bottleneck, Conv, Sequential, resize_like

MOMENTUM = 0.01  # of every batch norm in here; heads use torch's default of 0.1


@dataclass(frozen=True)
class Variant:
    """One HRNet: width of the finest branch, bottlenecks of stage 1, blocks per branch, modules of stages 2 to 4."""

    width: int
    bottlenecks: int
    blocks: int
    modules: tuple[int, int, int]


VARIANTS = {
    # What the field's multi-task code calls HRNet-18 is the "small v2" of the ImageNet models.
    "hrnet_w18": Variant(width=18, bottlenecks=2, blocks=2, modules=(1, 3, 2)),
    "hrnet_w18_full": Variant(width=18, bottlenecks=4, blocks=4, modules=(1, 4, 3)),
    "hrnet_w32": Variant(width=32, bottlenecks=4, blocks=4, modules=(1, 4, 3)),
    "hrnet_w48": Variant(width=48, bottlenecks=4, blocks=4, modules=(1, 4, 3)),
}


class HRNet(Backbone):
    """`[B, H, W, 3] -> ([B, H/4, W/4, w], [B, H/8, W/8, 2w], [B, H/16, W/16, 4w], [B, H/32, W/32, 8w])`.

    Sides that 32 does not divide are rounded up at every halving.

    Attributes:
        channels: widths of the four maps, finest first.
    """

    stages = ("conv", "layer1", "stage2", "stage3", "stage4")

    def __init__(self, variant: str, *, dtype: Dtype | None = None, rngs: nnx.Rngs):
        numbers = VARIANTS[variant]
        self.channels = tuple(numbers.width * 2**branch for branch in range(4))
        self.conv1 = Conv(3, 64, 3, stride=2, dtype=dtype, rngs=rngs)
        self.bn1 = BatchNorm(64, momentum=MOMENTUM, dtype=dtype)
        self.conv2 = Conv(64, 64, 3, stride=2, dtype=dtype, rngs=rngs)
        self.bn2 = BatchNorm(64, momentum=MOMENTUM, dtype=dtype)
        inner = 64
        widths = (inner,) + (inner * Bottleneck.expansion,) * numbers.bottlenecks
        self.layer1 = Sequential(
            [Bottleneck(width, inner, momentum=MOMENTUM, dtype=dtype, rngs=rngs) for width in widths[:-1]]
        )
        previous = widths[-1:]
        for stage, modules in zip((2, 3, 4), numbers.modules, strict=True):
            channels = self.channels[:stage]
            setattr(self, f"transition{stage - 1}", _transition(previous, channels, dtype, rngs))
            setattr(
                self,
                f"stage{stage}",
                Sequential([_Module(channels, numbers.blocks, dtype=dtype, rngs=rngs) for _ in range(modules)]),
            )
            previous = channels

    def stage_channels(self, stage: str) -> tuple[int, ...]:
        fixed = {"conv": (64,), "layer1": (64 * Bottleneck.expansion,)}
        return fixed.get(stage) or self.channels[: int(stage.removeprefix("stage"))]

    def _run_stage(self, stage: str, maps: Maps) -> Maps:
        if stage == "conv":
            x = nnx.relu(self.bn1(self.conv1(maps[0])))
            return (nnx.relu(self.bn2(self.conv2(x))),)
        if stage == "layer1":
            return (self.layer1(maps[0]),)
        number = int(stage.removeprefix("stage"))
        transition = getattr(self, f"transition{number - 1}")
        inputs = maps + maps[-1:] * (number - len(maps))  # a new branch starts from the coarsest map
        return getattr(self, stage)(
            tuple(transition[str(i)](x) if str(i) in transition else x for i, x in enumerate(inputs))
        )


def _conv_bn(in_features: int, out_features: int, kernel_size: int, stride: int, dtype, rngs) -> list:
    return [
        Conv(in_features, out_features, kernel_size, stride=stride, dtype=dtype, rngs=rngs),
        BatchNorm(out_features, momentum=MOMENTUM, dtype=dtype),
    ]


def _transition(previous: tuple[int, ...], channels: tuple[int, ...], dtype, rngs) -> nnx.Dict:
    """{branch: layers that make its map}; a branch whose width stays is not in it."""
    layers: nnx.Dict[nnx.Module] = nnx.Dict()
    for branch, width in enumerate(channels):
        if branch >= len(previous):
            layers[str(branch)] = Sequential(
                [Sequential([*_conv_bn(previous[-1], width, 3, 2, dtype, rngs), nnx.relu])]
            )
        elif previous[branch] != width:
            layers[str(branch)] = Sequential([*_conv_bn(previous[branch], width, 3, 1, dtype, rngs), nnx.relu])
    return layers


class _Module(nnx.Module):
    """Residual blocks on each branch, then every branch receives the sum of all (arXiv 1908.07919, sec. 3.2-3.3)."""

    def __init__(self, channels: tuple[int, ...], blocks: int, *, dtype: Dtype | None, rngs: nnx.Rngs):
        self.branches = nnx.List(
            [
                Sequential([BasicBlock(c, c, momentum=MOMENTUM, dtype=dtype, rngs=rngs) for _ in range(blocks)])
                for c in channels
            ]
        )
        self.fuse_layers = nnx.List(
            [
                nnx.Dict({str(j): _fuse(channels, j, i, dtype, rngs) for j in range(len(channels)) if j != i})
                for i in range(len(channels))
            ]
        )

    def __call__(self, maps: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        maps = tuple(branch(x) for branch, x in zip(self.branches, maps, strict=True))
        fused = []
        for i, layers in enumerate(self.fuse_layers):
            terms = [x if j == i else resize_like(layers[str(j)](x), maps[i]) for j, x in enumerate(maps)]
            fused.append(nnx.relu(sum(terms[1:], start=terms[0])))
        return tuple(fused)


def _fuse(channels: tuple[int, ...], source: int, target: int, dtype, rngs) -> Sequential:
    """Brings one branch to another's width, and to its resolution where that is coarser."""
    if source > target:
        return Sequential(_conv_bn(channels[source], channels[target], 1, 1, dtype, rngs))
    steps = []
    for step in range(source, target):
        last = step == target - 1
        width = channels[target] if last else channels[source]
        layers = _conv_bn(channels[source], width, 3, 2, dtype, rngs)
        steps.append(Sequential(layers if last else [*layers, nnx.relu]))
    return Sequential(steps)
