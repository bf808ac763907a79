"""HRNet (arXiv 1908.07919), its head, and the fusion of its four resolutions."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from parity.reference.blocks import BasicBlock, Bottleneck, conv, conv_bn, resize, resize_and_concat

MOMENTUM = 0.01

# bottlenecks of stage 1; modules of stages 2, 3, 4; basic blocks per branch; width of the finest branch
VARIANTS = {
    "hrnet_w18": (2, (1, 3, 2), 2, 18),
    "hrnet_w32": (4, (1, 4, 3), 4, 32),
    "hrnet_w48": (4, (1, 4, 3), 4, 48),
}


class HRModule(nn.Module):
    """Parallel branches of basic blocks, then every branch receives the sum of all, each brought to its resolution."""

    def __init__(self, widths: Sequence[int], blocks: int):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width, width, MOMENTUM) for _ in range(blocks))) for width in widths
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self._path(widths, source, target) for source in range(len(widths)))
            for target in range(len(widths))
        )

    @staticmethod
    def _path(widths: Sequence[int], source: int, target: int) -> nn.Module:
        if source == target:
            return nn.Identity()
        if source > target:
            return nn.Sequential(*conv_bn(widths[source], widths[target], 1, momentum=MOMENTUM))
        chain = []
        for _ in range(source + 1, target):
            layers = conv_bn(widths[source], widths[source], stride=2, momentum=MOMENTUM)
            chain.append(nn.Sequential(*layers, nn.ReLU()))
        chain.append(nn.Sequential(*conv_bn(widths[source], widths[target], stride=2, momentum=MOMENTUM)))
        return nn.Sequential(*chain)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        out = []
        for target, paths in enumerate(self.fuse_layers):
            size = maps[target].shape[-2:]
            moved = [path(x) for path, x in zip(paths, maps, strict=True)]
            out.append(torch.relu(sum(resize(y, size) for y in moved)))
        return out


class HRNet(nn.Module):
    """`[B, 3, H, W]` to four maps at strides 4, 8, 16 and 32; `channels` holds their widths."""

    def __init__(self, bottlenecks: int, modules: Sequence[int], blocks: int, width: int, inner: int = 64):
        super().__init__()
        self.channels = tuple(width * 2**i for i in range(4))
        self.conv1, self.bn1 = conv_bn(3, 64, stride=2, momentum=MOMENTUM)
        self.conv2, self.bn2 = conv_bn(64, 64, stride=2, momentum=MOMENTUM)
        self.layer1 = nn.Sequential(*(Bottleneck(4 * inner if i else 64, inner, MOMENTUM) for i in range(bottlenecks)))
        previous = (4 * inner,)
        for stage, number in enumerate(modules, start=2):
            widths = self.channels[:stage]
            setattr(self, f"transition{stage - 1}", self._transition(previous, widths))
            setattr(self, f"stage{stage}", nn.Sequential(*(HRModule(widths, blocks) for _ in range(number))))
            previous = widths

    @staticmethod
    def _transition(previous: Sequence[int], widths: Sequence[int]) -> nn.ModuleList:
        """Keeps the branches there are, adapting their width where it changes, and adds one from the coarsest."""
        layers = []
        for old, new in zip(previous, widths, strict=False):
            adapt = nn.Sequential(*conv_bn(old, new, momentum=MOMENTUM), nn.ReLU())
            layers.append(nn.Identity() if old == new else adapt)
        down = nn.Sequential(*conv_bn(previous[-1], widths[-1], stride=2, momentum=MOMENTUM), nn.ReLU())
        return nn.ModuleList([*layers, nn.Sequential(down)])

    def forward(self, x: Tensor) -> list[Tensor]:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        maps = [self.layer1(x)]
        for stage in (2, 3, 4):
            transition = getattr(self, f"transition{stage - 1}")
            maps = [layer(x) for layer, x in zip(transition, [*maps, maps[-1]], strict=True)]
            maps = getattr(self, f"stage{stage}")(maps)
        return maps


def hrnet(variant: str) -> HRNet:
    """An HRNet by name, with torch's default initialisation."""
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; there are {', '.join(VARIANTS)}")
    return HRNet(*VARIANTS[variant])


class Fusion(nn.Module):
    """All resolutions at the finest, concatenated, mixed by a 1x1 convolution with bias, BN, ReLU."""

    def __init__(self, channels: Sequence[int]):
        super().__init__()
        total = sum(channels)
        self.last_layer = nn.Sequential(conv(total, total, 1, bias=True), nn.BatchNorm2d(total), nn.ReLU())

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return self.last_layer(resize_and_concat(maps))


class HRNetHead(Fusion):
    """The fusion followed by a 1x1 convolution with bias to a task's channels."""

    def __init__(self, channels: Sequence[int], num_outputs: int):
        super().__init__(channels)
        self.last_layer.append(conv(sum(channels), num_outputs, 1, bias=True))
