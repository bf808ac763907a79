"""HRNet (arXiv 1908.07919): four branches at 1/4, 1/8, 1/16 and 1/32 of the image's resolution."""

import re
from dataclasses import dataclass

from flax import nnx

from mtl_jax.backbones.base import Backbone, Maps
from mtl_jax.backbones.registry import register
from mtl_jax.backbones.weights_table import register_weights
from mtl_jax.nn import BasicBlock, BatchNorm, Bottleneck, Conv, Sequential, resize_like
from mtl_jax.runtime.published_files import Address

MOMENTUM = 0.01  # for every batch norm of the backbone; heads use torch's default of 0.1


@dataclass(frozen=True)
class Variant:
    """The sizes of one HRNet.

    Attributes:
        width: Number of channels of the finest branch.
        bottlenecks: Number of bottlenecks in layer1.
        blocks: Number of basic blocks in every branch of a module.
        modules: Number of modules in each of stage2, stage3 and stage4.
        inner: Number of channels inside the bottlenecks of layer1.
    """

    width: int
    bottlenecks: int
    blocks: int
    modules: tuple[int, int, int]
    inner: int = 64


VARIANTS = {
    # "Small v1" among the ImageNet models.
    "hrnet_w18_small": Variant(width=16, bottlenecks=1, blocks=2, modules=(1, 1, 1), inner=32),
    # Multi-task papers call this one HRNet-18; among the ImageNet models it is "small v2".
    "hrnet_w18": Variant(width=18, bottlenecks=2, blocks=2, modules=(1, 3, 2)),
    "hrnet_w18_full": Variant(width=18, bottlenecks=4, blocks=4, modules=(1, 4, 3)),
    "hrnet_w32": Variant(width=32, bottlenecks=4, blocks=4, modules=(1, 4, 3)),
    "hrnet_w48": Variant(width=48, bottlenecks=4, blocks=4, modules=(1, 4, 3)),
}


class HRNet(Backbone):
    """HRNet without its classifier.

    `[B, H, W, 3] -> ([B, H/4, W/4, w], [B, H/8, W/8, 2w], [B, H/16, W/16, 4w], [B, H/32, W/32, 8w])`. Sides that 32
    does not divide are rounded up at every halving.

    Args:
        variant: A key of `VARIANTS`.
        rngs: Source of the initial weights.

    Attributes:
        channels: Number of channels of the four maps, finest first.
    """

    stages = ("conv", "layer1", "stage2", "stage3", "stage4")
    layers = (
        ("conv1", "bn1", "conv2", "bn2"),
        ("layer1",),
        ("transition1", "stage2"),
        ("transition2", "stage3"),
        ("transition3", "stage4"),
    )
    left_out = re.compile(r"(?:classifier|final_layer|incre_modules|downsamp_modules)\..*")

    def __init__(self, variant: str, *, rngs: nnx.Rngs):
        sizes = VARIANTS[variant]
        self.channels = widths = tuple(sizes.width * 2**branch for branch in range(4))
        self.conv1 = Conv(3, 64, 3, stride=2, rngs=rngs)
        self.bn1 = BatchNorm(64, momentum=MOMENTUM)
        self.conv2 = Conv(64, 64, 3, stride=2, rngs=rngs)
        self.bn2 = BatchNorm(64, momentum=MOMENTUM)
        outer = sizes.inner * Bottleneck.expansion
        inputs = (64, *[outer] * (sizes.bottlenecks - 1))
        self.layer1 = Sequential([Bottleneck(width, sizes.inner, momentum=MOMENTUM, rngs=rngs) for width in inputs])
        self._layer1_channels = outer

        def stage(branches: int, modules: int) -> Sequential:
            return Sequential([_Module(widths[:branches], sizes.blocks, rngs=rngs) for _ in range(modules)])

        self.transition1 = _transition((outer,), widths[:2], rngs)
        self.stage2 = stage(2, sizes.modules[0])
        self.transition2 = _transition(widths[:2], widths[:3], rngs)
        self.stage3 = stage(3, sizes.modules[1])
        self.transition3 = _transition(widths[:3], widths, rngs)
        self.stage4 = stage(4, sizes.modules[2])

    def stage_channels(self, stage: str) -> tuple[int, ...]:
        fixed = {"conv": (64,), "layer1": (self._layer1_channels,)}
        return fixed.get(stage) or self.channels[: int(stage.removeprefix("stage"))]

    def forward_stage(self, stage: str, maps: Maps) -> Maps:
        match stage:
            case "conv":
                x = nnx.relu(self.bn1(self.conv1(maps[0])))
                return (nnx.relu(self.bn2(self.conv2(x))),)
            case "layer1":
                return (self.layer1(maps[0]),)
            case "stage2":
                return self.stage2(_add_branch(self.transition1, maps))
            case "stage3":
                return self.stage3(_add_branch(self.transition2, maps))
            case _:
                return self.stage4(_add_branch(self.transition3, maps))


_TIMM = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-hrnet/"
for _name, _file in {
    "hrnet_w18_small": "hrnet_w18_small_v1-f460c6bc.pth",
    "hrnet_w18": "hrnet_w18_small_v2-4c50a8cb.pth",
    "hrnet_w18_full": "hrnetv2_w18-8cb57bb9.pth",
    "hrnet_w32": "hrnetv2_w32-90d8c5fb.pth",
    "hrnet_w48": "hrnetv2_w48-abd2e6ab.pth",
}.items():
    register_weights(_name, "imagenet", Address(_TIMM + _file), license="MIT")


@register(*VARIANTS)
def build_hrnet(name: str, *, image_size: tuple[int, int] | None = None, rngs: nnx.Rngs) -> HRNet:
    """Builds the HRNet of a name in `VARIANTS`, for images of any size."""
    return HRNet(name, rngs=rngs)


def _conv_bn(in_features: int, out_features: int, kernel_size: int, stride: int, rngs: nnx.Rngs) -> list:
    return [
        Conv(in_features, out_features, kernel_size, stride=stride, rngs=rngs),
        BatchNorm(out_features, momentum=MOMENTUM),
    ]


def _transition(previous: tuple[int, ...], channels: tuple[int, ...], rngs: nnx.Rngs) -> nnx.Dict:
    """Returns {branch: layers that make its map}; a branch that keeps its width has no entry."""
    layers: nnx.Dict[nnx.Module] = nnx.Dict()
    for branch, width in enumerate(channels):
        if branch >= len(previous):
            layers[str(branch)] = Sequential([Sequential([*_conv_bn(previous[-1], width, 3, 2, rngs), nnx.relu])])
        elif previous[branch] != width:
            layers[str(branch)] = Sequential([*_conv_bn(previous[branch], width, 3, 1, rngs), nnx.relu])
    return layers


def _add_branch(transition: nnx.Dict, maps: Maps) -> Maps:
    """Returns the inputs of a stage that has one branch more than the stage before."""
    inputs = (*maps, maps[-1])  # the new branch starts from the coarsest map
    return tuple(transition[str(i)](x) if str(i) in transition else x for i, x in enumerate(inputs))


class _Module(nnx.Module):
    """Residual blocks on each branch, and a fusion after which every branch has the sum of all (sec. 3.2-3.3)."""

    def __init__(self, channels: tuple[int, ...], blocks: int, *, rngs: nnx.Rngs):
        def branch(width: int) -> Sequential:
            return Sequential([BasicBlock(width, width, momentum=MOMENTUM, rngs=rngs) for _ in range(blocks)])

        def to_branch(i: int) -> nnx.Dict:
            return nnx.Dict({str(j): _resample(channels, j, i, rngs) for j in range(len(channels)) if j != i})

        self.branches = nnx.List([branch(width) for width in channels])
        self.fuse_layers = nnx.List([to_branch(i) for i in range(len(channels))])

    def __call__(self, maps: Maps) -> Maps:
        maps = tuple(branch(x) for branch, x in zip(self.branches, maps, strict=True))
        fused = []
        for i, layers in enumerate(self.fuse_layers):
            terms = [x if j == i else resize_like(layers[str(j)](x), maps[i]) for j, x in enumerate(maps)]
            fused.append(nnx.relu(sum(terms[1:], start=terms[0])))
        return tuple(fused)


def _resample(channels: tuple[int, ...], source: int, target: int, rngs: nnx.Rngs) -> Sequential:
    """Returns layers from one branch to the width of another, and to its resolution if that is coarser."""
    if source > target:
        return Sequential(_conv_bn(channels[source], channels[target], 1, 1, rngs))
    steps = []
    for step in range(source, target):
        last = step == target - 1
        width = channels[target] if last else channels[source]
        layers = _conv_bn(channels[source], width, 3, 2, rngs)
        steps.append(Sequential(layers if last else [*layers, nnx.relu]))
    return Sequential(steps)
