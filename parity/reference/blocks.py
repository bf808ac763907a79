"""Convolution blocks that the networks share. Tensors are NCHW."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def conv(
    inputs: int, outputs: int, size: int = 3, stride: int = 1, *, dilation: int = 1, bias: bool = False
) -> nn.Conv2d:
    """A convolution that pads symmetrically by half its extent."""
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2 * dilation, dilation=dilation, bias=bias)


def conv_bn(
    inputs: int, outputs: int, size: int = 3, stride: int = 1, *, dilation: int = 1, momentum: float = 0.1
) -> list[nn.Module]:
    return [conv(inputs, outputs, size, stride, dilation=dilation), nn.BatchNorm2d(outputs, momentum=momentum)]


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear with half-pixel centres, without antialiasing; a map that has the size already is returned as it is."""
    if x.shape[-2:] == tuple(size):
        return x
    return functional.interpolate(x, tuple(size), mode="bilinear", align_corners=False)


def resize_and_concat(maps: Sequence[Tensor]) -> Tensor:
    """All maps at the size of the first, concatenated over channels."""
    size = maps[0].shape[-2:]
    return torch.cat([maps[0], *(resize(x, size) for x in maps[1:])], dim=1)


def shortcut(inputs: int, outputs: int, stride: int, momentum: float, project: bool | None) -> nn.Module:
    """1x1 convolution and BN where `project` says so, by default where shapes differ; else nothing."""
    project = (inputs != outputs or stride != 1) if project is None else project
    return nn.Sequential(*conv_bn(inputs, outputs, 1, stride, momentum=momentum)) if project else nn.Identity()


class BasicBlock(nn.Module):
    """conv3x3 BN ReLU conv3x3 BN, add the shortcut, ReLU.

    Args:
        dilations: of the two convolutions.
        project: see `shortcut`.
    """

    expansion = 1

    def __init__(
        self,
        inputs: int,
        channels: int,
        momentum: float = 0.1,
        *,
        stride: int = 1,
        dilations: tuple[int, int] = (1, 1),
        project: bool | None = None,
    ):
        super().__init__()
        first, second = dilations
        self.conv1, self.bn1 = conv_bn(inputs, channels, stride=stride, dilation=first, momentum=momentum)
        self.conv2, self.bn2 = conv_bn(channels, channels, dilation=second, momentum=momentum)
        self.downsample = shortcut(inputs, channels, stride, momentum, project)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return torch.relu(y + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1 BN ReLU, 3x3 BN ReLU, 1x1 to four times the width BN, add the shortcut, ReLU.

    Args:
        dilations: of its one 3x3 convolution the first; the second is that of a basic block's other convolution.
    """

    expansion = 4

    def __init__(
        self,
        inputs: int,
        channels: int,
        momentum: float = 0.1,
        *,
        stride: int = 1,
        dilations: tuple[int, int] = (1, 1),
    ):
        super().__init__()
        outputs = channels * self.expansion
        self.conv1, self.bn1 = conv_bn(inputs, channels, 1, momentum=momentum)
        self.conv2, self.bn2 = conv_bn(channels, channels, stride=stride, dilation=dilations[0], momentum=momentum)
        self.conv3, self.bn3 = conv_bn(channels, outputs, 1, momentum=momentum)
        self.downsample = shortcut(inputs, outputs, stride, momentum, None)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return torch.relu(y + self.downsample(x))


class SqueezeExcite(nn.Module):
    """Channel gates from the spatial mean: linear, ReLU, linear, sigmoid (arXiv 1709.01507)."""

    def __init__(self, channels: int, reduction: int = 16):
        super().__init__()
        hidden = channels // reduction
        self.squeeze = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.squeeze(x.mean(dim=(2, 3)))[:, :, None, None]


class GatedConv(nn.Module):
    """conv3x3(x) * sigmoid(conv3x3'(x)), no biases."""

    def __init__(self, channels: int):
        super().__init__()
        self.attention = nn.Sequential(conv(channels, channels), nn.Sigmoid())
        self.conv = conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.attention(x)


class Distillation(nn.Module):
    """Adds the gated features of all other auxiliary tasks to those of each main task (arXiv 1805.04409)."""

    def __init__(self, channels: int, tasks: Sequence[str], aux_tasks: Sequence[str]):
        super().__init__()
        self.self_attention = nn.ModuleDict(
            {
                task: nn.ModuleDict({other: GatedConv(channels) for other in aux_tasks if other != task})
                for task in tasks
            }
        )

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            task: features[task] + sum(gate(features[other]) for other, gate in gates.items())
            for task, gates in self.self_attention.items()
        }
