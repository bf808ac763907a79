"""What heads and models expect of a backbone."""

from collections.abc import Mapping

import jax

from mtl_jax.nn import Staged

Maps = tuple[jax.Array, ...]


class Backbone(Staged):
    """`[B, H, W, 3]` images to feature maps, finest first, in stages between which models may step in.

    Attributes:
        channels: widths of the maps that heads read.
        stages: names of the stages in the order they run; the first is the stem.
    """

    channels: tuple[int, ...]

    def stage_channels(self, stage: str) -> tuple[int, ...]:
        """Widths of the maps a stage returns."""
        raise TypeError(f"{type(self).__name__} does not define stage_channels")

    def run_stage(self, stage: str, maps: Maps) -> Maps:
        """The maps after a stage from those before it; the stem takes the images."""
        return self.run(stage, lambda backbone, maps: backbone._run_stage(stage, maps), self, maps)

    def _run_stage(self, stage: str, maps: Maps) -> Maps:
        raise TypeError(f"{type(self).__name__} does not define _run_stage")

    def select(self, outputs: Mapping[str, Maps]) -> Maps:
        """What heads read, from {stage: its maps}."""
        return outputs[self.stages[-1]]

    def __call__(self, images: jax.Array) -> Maps:
        maps: Maps = (images,)
        outputs = {}
        for stage in self.stages:
            maps = outputs[stage] = self.run_stage(stage, maps)
        return self.select(outputs)
