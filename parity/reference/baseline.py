"""One network for one task, and the multi-task baseline: a shared backbone with a head per task."""

from collections.abc import Mapping

from torch import Tensor, nn

from parity.reference.blocks import resize


class SingleTask(nn.Module):
    """Backbone and one head; the prediction has the input's size."""

    def __init__(self, backbone: nn.Module, task: str, decoder: nn.Module):
        super().__init__()
        self.task, self.backbone, self.decoder = task, backbone, decoder

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {self.task: resize(self.decoder(self.backbone(image)), image.shape[-2:])}


class MultiTask(nn.Module):
    """One backbone, one head per task; predictions have the input's size."""

    def __init__(self, backbone: nn.Module, heads: Mapping[str, nn.Module]):
        super().__init__()
        self.backbone, self.decoders = backbone, nn.ModuleDict(heads)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        maps = self.backbone(image)
        return {task: resize(head(maps), image.shape[-2:]) for task, head in self.decoders.items()}
