"""Vision transformers as backbones: four maps of different resolutions, or the tokens after four blocks."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
from flax import nnx

from mtl_jax.backbones.base import Backbone, Maps
from mtl_jax.backbones.pyramid import Pyramid
from mtl_jax.backbones.registry import register
from mtl_jax.backbones.vit_encoder import Block, VisionTransformer
from mtl_jax.backbones.vit_variants import VARIANTS
from mtl_jax.backbones.vit_weights import published
from mtl_jax.nn import BlockTokens, Tokens

STEM = "patch_embed"
GROUPS = ("blocks_1", "blocks_2", "blocks_3", "blocks_4")


class ViT(Backbone):
    """A vision transformer and a pyramid over the patch tokens after four of its blocks.

    A stage is the patch embedding or a group of blocks. What passes from stage to stage are the patch tokens
    `[B, h, w, C]` and the class and register tokens `[B, 1, n, C]`. The final norm applies to the tokens of all four
    groups, as in DINOv2's `get_intermediate_layers`.

    With patches of p pixels the four maps have the strides p/4, p/2, p and 2p: `[B, H, W, 3] -> ([B, 4h, 4w, C/8],
    [B, 2h, 2w, C/4], [B, h, w, C/2], [B, h/2, w/2, C])`, where h = H/p and w = W/p.

    After `for_tokens` there is no pyramid: heads over plain tokens, such as DPT's, read the tokens of the four groups.

    Args:
        variant: A key of `VARIANTS`.
        rngs: Source of the initial weights.

    Attributes:
        channels: Number of channels of the four maps, finest first, or of the tokens of the four groups.
        encoder: The transformer, which pretrained weights fill.
        pyramid: The layers from its tokens to the four maps, which start from random weights; None where heads read
            tokens.
    """

    stages = (STEM, *GROUPS)

    def __init__(self, variant: str, *, rngs: nnx.Rngs):
        sizes = VARIANTS[variant]
        self.encoder = VisionTransformer(sizes, rngs=rngs)
        self.pyramid: Any = Pyramid(sizes.width, rngs=rngs)
        self.channels = self.pyramid.channels
        self.multiple = sizes.patch
        tokens = ("encoder.cls_token", "encoder.register_tokens", "encoder.pos_embed")
        self.no_weight_decay = tokens
        blocks = ((f"encoder.blocks.{i}",) for i in range(sizes.outputs[-1]))
        self.layers = (("encoder.patch_embed", *tokens), *blocks)

    def stage_channels(self, stage: str) -> tuple[int, ...]:
        return (self.encoder.variant.width,) * 2

    def parts(self, stage: str) -> Iterable[nnx.Module]:
        """Returns the modules of a stage, each of which recomputes its own activations if the stage is selected."""
        return [self.encoder.patch_embed] if stage == STEM else self._blocks(stage)

    def run_stage(self, stage: str, maps: Maps) -> Maps:
        """Calls `forward_stage`; under rematerialisation it is each block that recomputes, see `parts`."""
        return self.forward_stage(stage, maps)

    def forward_stage(self, stage: str, maps: Maps) -> Maps:
        return self.encoder.embed(*maps) if stage == STEM else self.encoder.run(self._blocks(stage), maps)

    def for_tokens(self) -> Self:
        self.pyramid = None
        self.channels = (self.encoder.variant.width,) * len(GROUPS)
        return self

    def _tokens(self, outputs: Mapping[str, Maps]) -> tuple[BlockTokens, ...]:
        """Returns the tokens after each of the four groups of blocks, as DINOv2's `get_intermediate_layers`.

        Args:
            outputs: {group: patch tokens `[B, h, w, C]`, class and register tokens `[B, 1, n, C]`}.
        """
        norm = self.encoder.norm
        raw = [Tokens(patches, prefix[:, 0, 0]) for patches, prefix in map(outputs.__getitem__, GROUPS)]
        return tuple(BlockTokens(each, Tokens(norm(each.patches), norm(each.class_token))) for each in raw)

    def select(self, outputs: Mapping[str, Maps]) -> Any:
        """Returns the maps of the pyramid, or after `for_tokens` the tokens, from {group: its tokens}."""
        tokens = self._tokens(outputs)
        return tokens if self.pyramid is None else self.pyramid([each.normed.patches for each in tokens])

    def pretrained_part(self) -> nnx.Module:
        return self.encoder

    def published_arrays(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return published(arrays, self.encoder.variant)

    def _blocks(self, group: str) -> list[Block]:
        bounds = list(itertools.pairwise((0, *self.encoder.variant.outputs)))
        first, end = bounds[GROUPS.index(group)]
        return list(self.encoder.blocks)[first:end]


@register(*VARIANTS)
def build_vit(name: str, *, image_size: tuple[int, int] | None = None, rngs: nnx.Rngs) -> ViT:
    """Builds the vision transformer of a name in `VARIANTS`, for images of any size that its patches divide.

    Raises:
        ValueError: The patches do not divide the size of the network's inputs.
    """
    patch = VARIANTS[name].patch
    if image_size is not None and any(side % patch for side in image_size):
        height, width = image_size
        nearest = ",".join(str(max(1, round(side / patch)) * patch) for side in image_size)
        raise ValueError(
            f"model.backbone {name} has patches of {patch}x{patch} pixels, which do not divide inputs of "
            f"{height}x{width} pixels; set data.image_size to multiples of {patch}, --data.image_size={nearest} for "
            "example"
        )
    return ViT(name, rngs=rngs)
