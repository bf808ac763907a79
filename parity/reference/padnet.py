"""PAD-Net (arXiv 1805.04409): initial predictions, distillation between their features, final predictions."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from parity.reference.blocks import Bottleneck, Distillation, conv, resize

WIDTH = 256  # channels of every task's features


def refinement(inputs: int) -> list[nn.Module]:
    """Two bottlenecks to the width of a task's features."""
    return [Bottleneck(channels, WIDTH // Bottleneck.expansion) for channels in (inputs, WIDTH)]


class InitialPredictions(nn.Module):
    """`[B, C, H, W]` to ({task: features}, {task: prediction}), at the same resolution."""

    def __init__(self, inputs: int, tasks: Sequence[str], num_outputs: Mapping[str, int]):
        super().__init__()
        self.layers = nn.ModuleDict({task: nn.Sequential(*refinement(inputs)) for task in tasks})
        self.conv_out = nn.ModuleDict({task: conv(WIDTH, num_outputs[task], 1, bias=True) for task in tasks})

    def forward(self, x: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        features = {task: layer(x) for task, layer in self.layers.items()}
        return features, {task: out(features[task]) for task, out in self.conv_out.items()}


class PADNet(nn.Module):
    """`[B, 3, H, W]` to {task: `[B, C, H, W]`} and {`initial_<aux task>`: prediction at the backbone's resolution}.

    Args:
        backbone: to one map with `channels` channels.
    """

    def __init__(
        self,
        backbone: nn.Module,
        channels: int,
        tasks: Sequence[str],
        aux_tasks: Sequence[str],
        num_outputs: Mapping[str, int],
    ):
        super().__init__()
        self.backbone = backbone
        self.initial_task_prediction_heads = InitialPredictions(channels, aux_tasks, num_outputs)
        self.multi_modal_distillation = Distillation(WIDTH, tasks, aux_tasks)
        self.heads = nn.ModuleDict(
            {task: nn.Sequential(*refinement(WIDTH), conv(WIDTH, num_outputs[task], 1, bias=True)) for task in tasks}
        )

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features, initial = self.initial_task_prediction_heads(self.backbone(image))
        distilled = self.multi_modal_distillation(features)
        final = {task: resize(head(distilled[task]), image.shape[-2:]) for task, head in self.heads.items()}
        return {**{f"initial_{task}": x for task, x in initial.items()}, **final}
