"""MTAN (arXiv 1803.10704): a shared backbone, out of which every task attends to features of its own."""

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from parity.reference.blocks import Bottleneck, conv, resize
from parity.reference.resnet import LAYERS, ResNet


def attention(inputs: int, channels: int) -> nn.Sequential:
    """A mask in 0..1 for `channels` channels, through a quarter of them."""
    hidden = channels // 4
    return nn.Sequential(
        conv(inputs, hidden, 1, bias=True),
        nn.BatchNorm2d(hidden),
        nn.ReLU(),
        conv(hidden, channels, 1, bias=True),
        nn.BatchNorm2d(channels),
        nn.Sigmoid(),
    )


class MTAN(nn.Module):
    """`[B, 3, H, W]` to {task: `[B, C, H, W]`}.

    A mask is computed from the map before a layer's last block, after layer1 together with the task's attended map of
    the layer before, refined to the new width; it multiplies the map after the last block.

    Args:
        backbone: dilated, so that layer2 alone halves the resolution of the layer before it.
        heads: {task: head on the attended map of layer4}.
    """

    def __init__(self, backbone: ResNet, heads: Mapping[str, nn.Module]):
        super().__init__()
        self.backbone, self.heads = backbone, nn.ModuleDict(heads)
        widths = [backbone.channels[layer] for layer in LAYERS]
        for i, width in enumerate(widths, start=1):
            inputs = width if i == 1 else 2 * width
            setattr(self, f"attention_{i}", nn.ModuleDict({task: attention(inputs, width) for task in heads}))
        for i, (width, following) in enumerate(pairwise(widths), start=1):
            setattr(self, f"refine_{i}", self._refinement(width, following, downsample=i == 1))

    @staticmethod
    def _refinement(width: int, following: int, downsample: bool) -> nn.Sequential:
        """Shared by all tasks, so that its batch norms see each of them in turn."""
        layers: list[nn.Module] = [Bottleneck(width, following // Bottleneck.expansion)]
        if downsample:  # rounding up, as the strided convolutions of layer2 do
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        return nn.Sequential(*layers)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x, refined = self.backbone.stage("conv", image), {}
        for i, layer in enumerate(LAYERS, start=1):
            blocks = getattr(self.backbone, layer)
            before = blocks[:-1](x)
            x = blocks[-1](before)
            attended = {}
            for task, mask in getattr(self, f"attention_{i}").items():
                inputs = torch.cat([before, refined[task]], dim=1) if refined else before
                attended[task] = x * mask(inputs)
            if layer != LAYERS[-1]:
                refine = getattr(self, f"refine_{i}")
                refined = {task: refine(y) for task, y in attended.items()}
        return {task: resize(head(attended[task]), image.shape[-2:]) for task, head in self.heads.items()}
