"""What Swin Transformers and ConvNeXts share: a stem, four stages of residual blocks, and a norm of each map."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
from flax import nnx

from mtl_jax.backbones.base import Backbone, Maps
from mtl_jax.nn import LayerNorm


class Stage(nnx.Module):
    """Residual blocks at one resolution: `[B, H, W, C] -> [B, H', W', C']`.

    Args:
        downsample: Module that halves the resolution before the first block; None = none does.
        blocks: The blocks. Their `__call__`, and that of `downsample`, is recomputable.
    """

    def __init__(self, downsample: nnx.Module | None, blocks: Iterable[nnx.Module]):
        self.downsample = downsample
        self.blocks = nnx.List(blocks)

    def parts(self) -> list[nnx.Module]:
        """Returns the modules in the order in which they run."""
        return [*([] if self.downsample is None else [self.downsample]), *self.blocks]

    def __call__(self, x: jax.Array) -> jax.Array:
        for part in self.parts():
            x = part(x)
        return x


class Hierarchy(Backbone):
    """A stem at 1/4 of the image's resolution, four stages at 1/4 to 1/32, and a layer norm of the map of each.

    Pretrained weights fill the encoder: the stem and the stages. The norms start with scales of 1 and biases of 0. The
    published code of Swin and ConvNeXt for dense prediction has the same norms; a classifier has one of the last map
    alone.

    Args:
        encoder: Module with a stem and a list of four `Stage`s.
        stem: Name of the encoder's stem, whose `__call__` is recomputable. It is the backbone's first stage, too.
        groups: Name of the encoder's list of stages. The backbone's stages after the stem are `{groups}_0` to
            `{groups}_3`.
        channels: Number of channels of the maps after the four stages.
        epsilon: What the norms add to the variance.

    Attributes:
        channels: Number of channels of the four maps, finest first.
    """

    def __init__(self, encoder: nnx.Module, *, stem: str, groups: str, channels: Sequence[int], epsilon: float):
        self.encoder = encoder
        self.channels = tuple(channels)
        self.norms = nnx.List([LayerNorm(width, epsilon=epsilon) for width in channels])
        self.stages = (stem, *(f"{groups}_{scale}" for scale in range(len(self.channels))))
        self._groups = groups
        self.layers = ((f"encoder.{stem}",), *self._layers())

    def _layers(self) -> Iterable[tuple[str, ...]]:
        """Yields the names of each block, the first one of a stage together with the layers before it, as in timm."""
        for scale, stage in enumerate(getattr(self.encoder, self._groups)):
            path = f"encoder.{self._groups}.{scale}"
            for i in range(len(stage.blocks)):
                before = () if i or stage.downsample is None else (f"{path}.downsample",)
                yield (*before, f"{path}.blocks.{i}")

    def _module(self, stage: str) -> Any:
        number = self.stages.index(stage)
        return getattr(self.encoder, self._groups)[number - 1] if number else getattr(self.encoder, stage)

    def stage_channels(self, stage: str) -> tuple[int, ...]:
        return (self.channels[max(0, self.stages.index(stage) - 1)],)

    def parts(self, stage: str) -> Iterable[nnx.Module]:
        """Returns the modules of a stage, each of which recomputes its own activations if the stage is selected."""
        module = self._module(stage)
        return module.parts() if isinstance(module, Stage) else [module]

    def run_stage(self, stage: str, maps: Maps) -> Maps:
        """Calls `forward_stage`; under rematerialisation it is each block that recomputes, see `parts`."""
        return self.forward_stage(stage, maps)

    def forward_stage(self, stage: str, maps: Maps) -> Maps:
        return (self._module(stage)(*maps),)

    def select(self, outputs: Mapping[str, Maps]) -> Maps:
        return tuple(norm(outputs[stage][0]) for norm, stage in zip(self.norms, self.stages[1:], strict=True))

    def pretrained_part(self) -> nnx.Module:
        return self.encoder
