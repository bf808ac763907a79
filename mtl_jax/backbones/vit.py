"""Vision transformers as backbones: four maps of different resolutions or of one, or the tokens after four blocks."""

import itertools
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Self

import numpy as np
from flax import nnx

from mtl_jax.backbones.base import Backbone, Maps
from mtl_jax.backbones.pyramid import Pyramid
from mtl_jax.backbones.registry import register, register_plain
from mtl_jax.backbones.vit_encoder import Block, VisionTransformer
from mtl_jax.backbones.vit_variants import IMAGENET_MEAN, IMAGENET_STD, VARIANTS, Variant
from mtl_jax.backbones.vit_weights import published
from mtl_jax.nn import BlockTokens, Tokens
from mtl_jax.nn.position_embedding import resize_cubic

STEM = "patch_embed"
GROUPS = ("blocks_1", "blocks_2", "blocks_3", "blocks_4")


class TransformerBackbone(Backbone):
    """The stages of a vision transformer: the patch embedding, and four groups of blocks.

    What passes from stage to stage are the patch tokens `[B, h, w, C]` and the class and register tokens
    `[B, 1, n, C]`.
    """

    stages = (STEM, *GROUPS)

    @abstractmethod
    def transformer(self) -> VisionTransformer:
        """Returns the transformer."""

    def describe_layers(self, prefix: str) -> None:
        """Sets what is said of the parameters of the transformer, whose names have a prefix such as "encoder."."""
        sizes = self.transformer().variant
        tokens = tuple(f"{prefix}{name}" for name in ("cls_token", "register_tokens", "pos_embed"))
        self.multiple = sizes.patch
        self.no_weight_decay = tokens
        blocks = ((f"{prefix}blocks.{i}",) for i in range(sizes.outputs[-1]))
        self.layers = ((f"{prefix}patch_embed", *tokens), *blocks)

    def stage_channels(self, stage: str) -> tuple[int, ...]:
        return (self.transformer().variant.width,) * 2

    def parts(self, stage: str) -> Iterable[nnx.Module]:
        """Returns the modules of a stage, each of which recomputes its own activations if the stage is selected."""
        return [self.transformer().patch_embed] if stage == STEM else self._blocks(stage)

    def run_stage(self, stage: str, maps: Maps) -> Maps:
        """Calls `forward_stage`; under rematerialisation it is each block that recomputes, see `parts`."""
        return self.forward_stage(stage, maps)

    def forward_stage(self, stage: str, maps: Maps) -> Maps:
        transformer = self.transformer()
        return transformer.embed(*maps) if stage == STEM else transformer.run(self._blocks(stage), maps)

    def _blocks(self, group: str) -> list[Block]:
        transformer = self.transformer()
        bounds = list(itertools.pairwise((0, *transformer.variant.outputs)))
        first, end = bounds[GROUPS.index(group)]
        return list(transformer.blocks)[first:end]


class ViT(TransformerBackbone):
    """A vision transformer and a pyramid over the patch tokens after four of its blocks.

    The final norm applies to the tokens of all four groups of blocks, as in DINOv2's `get_intermediate_layers`.

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

    def __init__(self, variant: str, *, rngs: nnx.Rngs):
        sizes = VARIANTS[variant]
        self.encoder = VisionTransformer(sizes, rngs=rngs)
        self.pyramid: Any = Pyramid(sizes.width, rngs=rngs)
        self.channels = self.pyramid.channels
        self.describe_layers("encoder.")

    def transformer(self) -> VisionTransformer:
        return self.encoder

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


class PlainViT(VisionTransformer, TransformerBackbone):
    """A vision transformer without a pyramid, as InvPT (arXiv 2203.07997) reads it: four maps of one resolution.

    The maps are the patch tokens after the first three groups of blocks as they are, and those after the last one with
    the final norm: `[B, H, W, 3] -> ([B, h, w, C],) * 4`, where h = H/p and w = W/p with patches of p pixels.

    The position embedding is stored for the grid of the images of the training. It is resized bicubically without
    antialiasing (`resize_cubic`) when a file for another grid is read, and for images of other sizes. Images keep
    ImageNet's statistics, whatever the published weights of the variant were trained with.

    Args:
        variant: Sizes of the transformer.
        grid: (rows, columns) of patches for which the position embedding is stored; None = those of the variant.
        drop_path: Probability that an image loses a branch of the last block in training, see `VisionTransformer`.
        rngs: Source of the initial weights.
    """

    one_resolution = True

    def __init__(
        self, variant: Variant, *, grid: tuple[int, int] | None = None, drop_path: float = 0.0, rngs: nnx.Rngs
    ):
        variant = replace(variant, resize=resize_cubic, mean=IMAGENET_MEAN, std=IMAGENET_STD)
        super().__init__(variant, grid=grid, drop_path=drop_path, rngs=rngs)
        self.channels = (variant.width,) * len(GROUPS)
        self.describe_layers("")

    def transformer(self) -> VisionTransformer:
        return self

    def select(self, outputs: Mapping[str, Maps]) -> Maps:
        *inner, last = (outputs[group][0] for group in GROUPS)
        return (*inner, self.norm(last))

    def published_arrays(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return published(arrays, self.variant, self.grid, resize_cubic)


@register(*VARIANTS)
def build_vit(name: str, *, image_size: tuple[int, int] | None = None, rngs: nnx.Rngs) -> ViT:
    """Builds the vision transformer of a name in `VARIANTS`, for images of any size that its patches divide.

    Raises:
        ValueError: The patches do not divide the size of the network's inputs.
    """
    _grid(name, image_size)
    return ViT(name, rngs=rngs)


@register_plain(*VARIANTS)
def build_plain_vit(
    name: str, *, image_size: tuple[int, int] | None = None, drop_path: float = 0.0, rngs: nnx.Rngs
) -> PlainViT:
    """Builds the plain vision transformer of a name in `VARIANTS`, with positions for images of this size.

    Raises:
        ValueError: The patches do not divide the size of the network's inputs.
    """
    return PlainViT(VARIANTS[name], grid=_grid(name, image_size), drop_path=drop_path, rngs=rngs)


def _grid(name: str, image_size: tuple[int, int] | None) -> tuple[int, int] | None:
    """Returns the (rows, columns) of the patches of an image, None where its size is not known.

    Raises:
        ValueError: The patches do not divide the image.
    """
    if image_size is None:
        return None
    patch = VARIANTS[name].patch
    if any(side % patch for side in image_size):
        height, width = image_size
        nearest = ",".join(str(max(1, round(side / patch)) * patch) for side in image_size)
        raise ValueError(
            f"model.backbone {name} has patches of {patch}x{patch} pixels, which do not divide inputs of "
            f"{height}x{width} pixels; set data.image_size to multiples of {patch}, --data.image_size={nearest} for "
            "example"
        )
    rows, columns = (side // patch for side in image_size)
    return rows, columns
