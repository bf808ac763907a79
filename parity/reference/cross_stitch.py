"""Cross-stitch networks (arXiv 1604.03539): one network per task, whose maps are mixed linearly after every layer."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from parity.reference.blocks import resize
from parity.reference.resnet import LAYERS, ResNet


class ChannelScale(nn.Module):
    """One learned factor per channel."""

    def __init__(self, channels: int, value: float):
        super().__init__()
        self.param = nn.Parameter(torch.full((channels,), value))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.param[:, None, None]


class CrossStitchUnit(nn.Module):
    """out[t] = sum over s of a[t][s] * x[s], per channel; a starts as alpha for s = t and beta otherwise."""

    def __init__(self, tasks: Sequence[str], channels: int, alpha: float, beta: float):
        super().__init__()
        self.cross_stitch_unit = nn.ModuleDict(
            {t: nn.ModuleDict({s: ChannelScale(channels, alpha if s == t else beta) for s in tasks}) for t in tasks}
        )

    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {t: sum(scale(maps[s]) for s, scale in row.items()) for t, row in self.cross_stitch_unit.items()}


class CrossStitchNetwork(nn.Module):
    """`[B, 3, H, W]` to {task: `[B, C, H, W]`}."""

    def __init__(self, backbones: Mapping[str, ResNet], heads: Mapping[str, nn.Module], alpha: float, beta: float):
        super().__init__()
        channels = next(iter(backbones.values())).channels
        self.backbone, self.heads = nn.ModuleDict(backbones), nn.ModuleDict(heads)
        self.cross_stitch = nn.ModuleDict(
            {layer: CrossStitchUnit(tuple(backbones), channels[layer], alpha, beta) for layer in LAYERS}
        )

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        maps = dict.fromkeys(self.backbone, image)
        for layer, unit in self.cross_stitch.items():
            maps = unit({task: backbone.stage(layer, maps[task]) for task, backbone in self.backbone.items()})
        return {task: resize(head(maps[task]), image.shape[-2:]) for task, head in self.heads.items()}
