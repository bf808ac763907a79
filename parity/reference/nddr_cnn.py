"""NDDR-CNN (arXiv 1801.08297): one network per task, whose maps are concatenated and reduced after every stage."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from parity.reference.blocks import conv_bn, resize
from parity.reference.resnet import ResNet

STAGES = ("conv", "layer1_without_conv", "layer2", "layer3", "layer4")
MOMENTUM = 0.05


class NDDRLayer(nn.Module):
    """All tasks' maps concatenated, then per task a 1x1 convolution, BN and ReLU.

    The kernel starts as alpha times the identity on the task's own block and beta times it on the others.
    """

    def __init__(self, tasks: Sequence[str], channels: int, alpha: float, beta: float):
        super().__init__()
        self.layer = nn.ModuleDict()
        for task in tasks:
            reduction, bn = conv_bn(len(tasks) * channels, channels, 1, momentum=MOMENTUM)
            blocks = [(alpha if other == task else beta) * torch.eye(channels) for other in tasks]
            with torch.no_grad():
                reduction.weight.copy_(torch.cat(blocks, dim=1)[:, :, None, None])
            self.layer[task] = nn.Sequential(reduction, bn, nn.ReLU())

    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        x = torch.cat([maps[task] for task in self.layer], dim=1)
        return {task: reduction(x) for task, reduction in self.layer.items()}


class NDDRCNN(nn.Module):
    """`[B, 3, H, W]` to {task: `[B, C, H, W]`}."""

    def __init__(self, backbones: Mapping[str, ResNet], heads: Mapping[str, nn.Module], alpha: float, beta: float):
        super().__init__()
        channels = {"conv": 64, **next(iter(backbones.values())).channels}
        self.backbone, self.heads = nn.ModuleDict(backbones), nn.ModuleDict(heads)
        self.nddr = nn.ModuleDict(
            {s: NDDRLayer(tuple(backbones), channels[s.removesuffix("_without_conv")], alpha, beta) for s in STAGES}
        )

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        maps = dict.fromkeys(self.backbone, image)
        for stage, fuse in self.nddr.items():
            maps = fuse({task: backbone.stage(stage, maps[task]) for task, backbone in self.backbone.items()})
        return {task: resize(head(maps[task]), image.shape[-2:]) for task, head in self.heads.items()}
