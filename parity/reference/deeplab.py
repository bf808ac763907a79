"""The DeepLab head: atrous spatial pyramid pooling (arXiv 1706.05587)."""

import torch
from torch import Tensor, nn

from parity.reference.blocks import conv, conv_bn, resize

RATES = (12, 24, 36)
WIDTH = 256


class ASPP(nn.Module):
    """A 1x1 convolution, three dilated ones and the global mean, concatenated and projected; BN and ReLU everywhere."""

    def __init__(self, inputs: int, dropout: float):
        super().__init__()

        def branch(size: int, dilation: int = 1) -> nn.Sequential:
            return nn.Sequential(*conv_bn(inputs, WIDTH, size, dilation=dilation), nn.ReLU())

        pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), *branch(1))
        self.convs = nn.ModuleList([branch(1), *(branch(3, rate) for rate in RATES), pooled])
        layers = conv_bn(len(self.convs) * WIDTH, WIDTH, 1)
        self.project = nn.Sequential(*layers, nn.ReLU(), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        return self.project(torch.cat([resize(branch(x), x.shape[-2:]) for branch in self.convs], dim=1))


def deeplab_head(inputs: int, num_outputs: int, dropout: float = 0.0) -> nn.Sequential:
    """ASPP, 3x3 convolution BN ReLU, 1x1 convolution with bias to a task's channels.

    Args:
        dropout: probability after the projection; 0.5 when training in earnest, 0 for numbers that can be compared.
    """
    return nn.Sequential(
        ASPP(inputs, dropout), *conv_bn(WIDTH, WIDTH), nn.ReLU(), conv(WIDTH, num_outputs, 1, bias=True)
    )
