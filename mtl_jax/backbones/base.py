"""The interface of a backbone."""

import re
from collections.abc import Mapping
from typing import Self

import jax
import numpy as np
from flax import nnx

from mtl_jax.backbones.published import renamed
from mtl_jax.nn import Staged
from mtl_jax.nn.remat import recompute

Maps = tuple[jax.Array, ...]


class Backbone(Staged):
    """A network from `[B, H, W, 3]` images to feature maps, finest first, that runs in stages.

    Models may use the maps between stages. A subclass sets the attributes and defines `stage_channels` and
    `forward_stage`.

    Attributes:
        channels: Number of channels of each map that heads read.
        stages: Names of the stages in the order in which they run; the first one is the stem.
        layers: Names of the submodules and parameters of each layer, in the order in which they run; the first layer is
            the stem. Layer-wise decay of the learning rate needs them. What no layer names comes after the last one,
            as the norm after the last block of a transformer. Names may be paths, as "blocks.0".
        no_weight_decay: Paths of submodules and parameters with two or more axes that are no kernels, such as position
            embeddings and class tokens, so that they do not decay with kernels.
        multiple: The sides of images that prediction pads or scales become multiples of this number of pixels.
        left_out: Pattern of the whole names of arrays that files of published weights hold and the backbone does
            not: those of a classifier.
        fixed_size: True if weights depend on the size of the images, as position embeddings do. Prediction then refuses
            images of other sizes than the network's input size.
        one_resolution: True if all maps have one resolution, as those of a plain transformer do.
    """

    channels: tuple[int, ...]
    layers: tuple[tuple[str, ...], ...] = ()
    no_weight_decay: tuple[str, ...] = ()
    multiple: int = 32
    left_out: re.Pattern[str] = re.compile(r"(?:fc|classifier)\..*")
    fixed_size: bool = False
    one_resolution: bool = False

    def stage_channels(self, stage: str) -> tuple[int, ...]:
        """Returns the number of channels of each map that a stage returns."""
        raise TypeError(f"{type(self).__name__} does not define stage_channels")

    def forward_stage(self, stage: str, maps: Maps) -> Maps:
        """Computes the maps after a stage from the maps before it; the stem takes `(images,)`."""
        raise TypeError(f"{type(self).__name__} does not define forward_stage")

    def run_stage(self, stage: str, maps: Maps) -> Maps:
        """Calls `forward_stage`, under rematerialisation if the stage is selected for it."""
        if stage in self.remat:
            return recompute(lambda backbone, maps: backbone.forward_stage(stage, maps), self, maps)
        return self.forward_stage(stage, maps)

    def select(self, outputs: Mapping[str, Maps]) -> Maps:
        """Returns the maps that heads read, from {stage: its maps}."""
        return outputs[self.stages[-1]]

    def for_tokens(self) -> Self:
        """Lets the backbone return tokens in place of maps, for heads that read these; returns the backbone itself.

        The result of a call is then a `mtl_jax.nn.BlockTokens` for each of several blocks, the first block first, and
        `channels` are the widths of the tokens.

        Raises:
            ValueError: The backbone has no tokens.
        """
        raise ValueError(f"a {type(self).__name__} has no tokens")

    def pretrained_part(self) -> nnx.Module:
        """Returns the part that pretrained weights fill: all of the backbone, unless a subclass adds layers to it."""
        return self

    def published_arrays(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the arrays of a file of pretrained weights, {torch key: array}, under the names of that part.

        A log line lists those that are left out (`left_out`).
        """
        return renamed(arrays, self.left_out, ())

    def __call__(self, images: jax.Array) -> Maps:
        """`[B, H, W, 3]` images -> the maps that heads read, finest first."""
        maps: Maps = (images,)
        outputs = {}
        for stage in self.stages:
            maps = outputs[stage] = self.run_stage(stage, maps)
        return self.select(outputs)
