"""MTI-Net (arXiv 2001.06902): multi-scale task interactions on top of HRNet."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from parity.reference.blocks import BasicBlock, Distillation, SqueezeExcite, conv, resize
from parity.reference.hrnet import HRNetHead

SCALES = (0, 1, 2, 3)  # finest to coarsest


class InitialPrediction(nn.Module):
    """Features and a first prediction per task at one scale, helped by the next coarser one."""

    def __init__(self, channels: int, coarser: int, tasks: Sequence[str], num_outputs: Mapping[str, int]):
        super().__init__()

        def refine() -> nn.Module:
            return nn.Sequential(BasicBlock(channels + coarser, channels), BasicBlock(channels, channels))

        self.refinement = nn.ModuleDict({task: refine() for task in tasks})
        self.decoders = nn.ModuleDict({task: conv(channels, num_outputs[task], 1, bias=True) for task in tasks})

    def forward(self, x: Tensor, coarser: Mapping[str, Tensor] | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Backbone map and the coarser scale's propagated features; returns features and predictions."""
        features, predictions = {}, {}
        for task, refine in self.refinement.items():
            inputs = x if coarser is None else torch.cat([x, resize(coarser[task], x.shape[-2:])], dim=1)
            features[task] = refine(inputs)
            predictions[task] = self.decoders[task](features[task])
        return features, predictions


class FeaturePropagation(nn.Module):
    """What the tasks of one scale share, gated per task and added to the task's own features.

    The attention over the concatenated features is a softmax over groups of adjacent channels, as many as there are
    tasks, although the channels are ordered by task.
    """

    def __init__(self, channels: int, tasks: Sequence[str]):
        super().__init__()
        total = channels * len(tasks)
        hidden = total // 4
        self.non_linear = nn.Sequential(
            BasicBlock(total, hidden, project=True), BasicBlock(hidden, hidden), conv(hidden, total, 1, bias=True)
        )
        self.dimensionality_reduction = BasicBlock(total, channels, project=True)
        self.se = nn.ModuleDict({task: SqueezeExcite(channels) for task in tasks})

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        number = len(self.se)
        x = torch.cat([features[task] for task in self.se], dim=1)
        batch, total, height, width = x.shape
        scores = self.non_linear(x).view(batch, total // number, number, height, width)
        attention = torch.softmax(scores, dim=2).view_as(x)
        shared = self.dimensionality_reduction(attention * x)
        return {task: gate(shared) + features[task] for task, gate in self.se.items()}


class MTINet(nn.Module):
    """`[B, 3, H, W]` to {task: `[B, C, H, W]`} and `deep_supervision`: {scale_k: {aux task: prediction}}."""

    def __init__(
        self,
        backbone: nn.Module,
        channels: Sequence[int],
        tasks: Sequence[str],
        aux_tasks: Sequence[str],
        num_outputs: Mapping[str, int],
    ):
        super().__init__()
        self.backbone = backbone
        for scale in reversed(SCALES[1:]):
            setattr(self, f"fpm_scale_{scale}", FeaturePropagation(channels[scale], aux_tasks))
        for scale in SCALES:
            coarser = channels[scale + 1] if scale < SCALES[-1] else 0
            initial = InitialPrediction(channels[scale], coarser, aux_tasks, num_outputs)
            setattr(self, f"scale_{scale}", initial)
        for scale in SCALES:
            setattr(self, f"distillation_scale_{scale}", Distillation(channels[scale], tasks, aux_tasks))
        self.heads = nn.ModuleDict({task: HRNetHead(channels, num_outputs[task]) for task in tasks})

    def forward(self, image: Tensor) -> dict:
        maps = self.backbone(image)
        features, predictions, propagated = {}, {}, None
        for scale in reversed(SCALES):
            initial = getattr(self, f"scale_{scale}")
            features[scale], predictions[scale] = initial(maps[scale], propagated)
            if scale > 0:
                propagated = getattr(self, f"fpm_scale_{scale}")(features[scale])
        distilled = {scale: getattr(self, f"distillation_scale_{scale}")(features[scale]) for scale in SCALES}
        out = {"deep_supervision": {f"scale_{scale}": predictions[scale] for scale in SCALES}}
        for task, head in self.heads.items():
            out[task] = resize(head([distilled[scale][task] for scale in SCALES]), image.shape[-2:])
        return out
