"""ResNet (arXiv 1512.03385), plain or dilated to output stride 8, whole or stage by stage."""

import torch
from torch import Tensor, nn

from parity.reference.blocks import BasicBlock, Bottleneck, conv_bn

VARIANTS = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
    "resnet152": (Bottleneck, (3, 8, 36, 3)),
}
LAYERS = ("layer1", "layer2", "layer3", "layer4")
# Dilation in place of a stride: of the 3x3 convolution that lost it, and of all others of that layer.
DILATIONS = {"layer3": (1, 2), "layer4": (2, 4)}


class ResNet(nn.Module):
    """`[B, 3, H, W]` to the map of layer4, or to logits where there are classes; `channels` holds the layers' widths.

    Args:
        block: basic block or bottleneck.
        numbers: blocks of layer1 to layer4.
        dilated: to stride 8 instead of 32.
        num_classes: outputs of the classifier; 0: there is none.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        numbers: tuple[int, ...],
        dilated: bool = False,
        num_classes: int = 0,
    ):
        super().__init__()
        self.conv1, self.bn1 = conv_bn(3, 64, 7, stride=2)
        self.channels, inputs = {}, 64
        for i, (name, number) in enumerate(zip(LAYERS, numbers, strict=True)):
            dilations = DILATIONS.get(name) if dilated else None
            lost, others = dilations or (1, 1)
            stride = 1 if dilations or name == "layer1" else 2
            width = 64 * 2**i
            blocks = [block(inputs, width, stride=stride, dilations=(lost, others))]
            inputs = self.channels[name] = width * block.expansion
            blocks += [block(inputs, width, dilations=(others, others)) for _ in range(number - 1)]
            setattr(self, name, nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, num_classes) if num_classes else None

    def stage(self, name: str, x: Tensor) -> Tensor:
        """One stage as the staged models name them.

        `conv` is the stem with its max-pool, `layer1` includes it, and `layer1_without_conv`, `layer2`, `layer3` and
        `layer4` are the layers alone.
        """
        if name in ("conv", "layer1"):
            x = torch.relu(self.bn1(self.conv1(x)))
            x = nn.functional.max_pool2d(x, 3, stride=2, padding=1)
        return x if name == "conv" else getattr(self, name.removesuffix("_without_conv"))(x)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """The maps of all layers, and `logits` where there are classes."""
        maps = {}
        for name in LAYERS:
            x = maps[name] = self.stage(name, x)
        return maps if self.fc is None else {**maps, "logits": self.fc(x.mean(dim=(2, 3)))}

    def forward(self, x: Tensor) -> Tensor:
        return list(self.features(x).values())[-1]


def resnet(variant: str, dilated: bool = False, num_classes: int = 0) -> ResNet:
    """A ResNet by name, with torch's default initialisation."""
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; there are {', '.join(VARIANTS)}")
    return ResNet(*VARIANTS[variant], dilated, num_classes)
