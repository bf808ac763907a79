"""InvPT (arXiv 2203.07997): an inverted pyramid of transformer blocks that join the tokens of all tasks."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
from flax import nnx

from mtl_jax.backbones import Backbone
from mtl_jax.config import option
from mtl_jax.models.base import MultiTaskModel
from mtl_jax.models.inverted_pyramid import HEADS, STAGES, InvertedPyramid
from mtl_jax.models.registry import ModelParts, register
from mtl_jax.models.transformer_tasks import as_outputs, check_two_logits, published_order, with_two_logits
from mtl_jax.nn import (
    BatchNorm,
    Conv,
    DoublingConv,
    Sequential,
    freeze_parameters,
    recomputable,
    resize_bilinear,
    resize_like,
)
from mtl_jax.outputs import Outputs


@dataclass(frozen=True)
class InvPTOptions:
    """The options of InvPT.

    Attributes:
        features: Number of channels of a task's preliminary features.
        extra: Number of channels that the first stage of the decoder has besides these. The second stage has half of
            their sum, the third one a quarter.
        drop_path: Rate of stochastic depth in the last block of a vision transformer; those of the blocks before it
            grow linearly from 0.
        two_logits: Tasks with a foreground, joined by "+", for which the network has two logits, of background and
            foreground. Tasks that the data set does not have may stand there.

    Raises:
        ValueError: The channels do not divide into stages and heads, the rate is no probability below 1, or a task of
            `two_logits` is unknown or has no foreground.
    """

    features: int = option(512, least=1)
    extra: int = option(64, least=0)
    drop_path: float = option(0.15, least=0)
    two_logits: str = "sal"

    def __post_init__(self):
        if self.width % (4 * HEADS):
            raise ValueError(
                f"model.options.features + model.options.extra is {self.width}; give numbers whose sum is a multiple "
                f"of {4 * HEADS}, which stages and heads divide"
            )
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"model.options.drop_path is {self.drop_path}; it must be at least 0 and below 1")
        check_two_logits(self.two_logits)

    @property
    def width(self) -> int:
        """Number of channels of the first stage and of the result."""
        return self.features + self.extra


class PreliminaryDecoder(Sequential):
    """The preliminary features of a task: two conv3x3, BN and ReLU.

    Args:
        in_features: Number of channels of the encoder's map.
        features: Number of channels of the result.
        rngs: Source of the initial weights.
    """

    def __init__(self, in_features: int, features: int, *, rngs: nnx.Rngs):
        super().__init__([_ConvNormReLU(in_features, width, rngs=rngs) for width in (in_features, features)])

    @recomputable
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, h, w, in_features] -> [B, h, w, features]`"""
        return super().__call__(x)


class _ConvNormReLU(nnx.Module):
    """relu(BN(conv3x3(x)))"""

    norm_inputs: ClassVar[Mapping[str, str]] = {"bn1": "conv"}

    def __init__(self, in_features: int, features: int, *, rngs: nnx.Rngs):
        self.conv = Conv(in_features, features, 3, rngs=rngs)
        self.bn1 = BatchNorm(features)

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.relu(self.bn1(self.conv(x)))


class Decoder(nnx.Module):
    """Preliminary features and predictions of all tasks, refined by the inverted pyramid.

    The maps of the encoder that the stages add have the resolutions of the stages. A plain transformer gives all maps
    at the resolution of the second stage: that stage adds the second map, the third stage the first one, enlarged. Of a
    backbone whose maps have the strides 4, 8, 16 and 32, these are the third map and the second one.

    Args:
        channels: Number of channels of the encoder's four maps.
        plain: True if the maps have one resolution.
        num_outputs: {task: number of channels of its prediction} in the order of published weights.
        options: The options of the model.
        rngs: Source of the initial weights.
    """

    def __init__(
        self,
        channels: Sequence[int],
        plain: bool,
        num_outputs: Mapping[str, int],
        options: InvPTOptions,
        *,
        rngs: nnx.Rngs,
    ):
        self.tasks, self.plain = tuple(num_outputs), plain
        width, deepest = options.width, channels[-1]
        conv = partial(Conv, kernel_size=3, use_bias=True, rngs=rngs)
        if plain:
            unused = freeze_parameters(conv(channels[2], width))  # published weights have it
            enlarging = DoublingConv(channels[0], width // 4, rngs=rngs)
            self.scale_embed = nnx.List([enlarging, conv(channels[1], width // 2), unused])
        else:
            self.scale_embed = nnx.List([conv(channels[1], width // 4), conv(channels[2], width // 2)])
        decoders = {task: PreliminaryDecoder(deepest, options.features, rngs=rngs) for task in self.tasks}
        heads = {task: Conv(options.features, n, 1, use_bias=True, rngs=rngs) for task, n in num_outputs.items()}
        self.preliminary_decoder, self.intermediate_head = nnx.Dict(decoders), nnx.Dict(heads)
        self.invpt = InvertedPyramid(num_outputs, options.features, width, rngs=rngs)

    def __call__(self, maps: Sequence[jax.Array]) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """Maps of the encoder -> ({task: features `[B, H/4, W/4, C]`}, {task: preliminary prediction `[B, H/32, W/32,
        channels]`}), with patches of 16 pixels.
        """
        fine, finer = (maps[1], maps[0]) if self.plain else (maps[2], maps[1])
        encoder = (None, self.scale_embed[1](fine), self.scale_embed[0](finer))
        deepest = _halved(maps[-1]) if self.plain else maps[-1]
        features = {task: self.preliminary_decoder[task](deepest) for task in self.tasks}
        predictions = {task: self.intermediate_head[task](features[task]) for task in self.tasks}
        return self.invpt(features, predictions, encoder), predictions


class PredictionHead(nnx.Module):
    """A conv1x1 to the logits of a task: `[B, H, W, features] -> [B, H, W, num_outputs]`.

    Args:
        features: Number of input channels.
        num_outputs: Number of logit channels.
        rngs: Source of the initial weights.
    """

    def __init__(self, features: int, num_outputs: int, *, rngs: nnx.Rngs):
        self.linear_pred = Conv(features, num_outputs, 1, use_bias=True, rngs=rngs)

    @recomputable
    def __call__(self, x: jax.Array) -> jax.Array:
        return self.linear_pred(x)


class InvPT(MultiTaskModel):
    """Inverted pyramid multi-task transformer.

    Every task has preliminary features and a preliminary prediction from the deepest map of the encoder. Three stages
    join the tokens of all tasks at growing resolutions, and a head for each task reads the sum of their maps.

    Args:
        backbone: Network from images to four maps.
        num_outputs: {task: number of logit channels}.
        options: The options of the model.
        rngs: Source of the initial weights.

    Raises:
        ValueError: The backbone has another number of maps, or images of a call have sides that are no `multiple`.
    """

    stages = ("preliminary", *(f"stage_{number}" for number in range(STAGES)), "heads")

    def __init__(self, backbone: Backbone, num_outputs: Mapping[str, int], options: InvPTOptions, *, rngs: nnx.Rngs):
        if len(backbone.channels) != STAGES + 1:
            raise ValueError(
                f"model invpt reads {STAGES + 1} maps of its backbone, {type(backbone).__name__} has "
                f"{len(backbone.channels)}; choose another model.backbone, such as vit_large_patch16"
            )
        ordered = {task: num_outputs[task] for task in published_order(num_outputs)}
        channels = with_two_logits(ordered, options.two_logits)
        self.num_outputs = tuple(ordered.items())
        self.backbone = backbone
        self.multi_task_decoder = Decoder(backbone.channels, backbone.one_resolution, channels, options, rngs=rngs)
        self.heads = nnx.Dict({t: PredictionHead(options.width, n, rngs=rngs) for t, n in channels.items()})

    @property
    def multiple(self) -> int:
        """Number of pixels of which the sides of images are multiples: the first stage halves its maps once more."""
        return 4 * self.backbone.multiple if self.backbone.one_resolution else math.lcm(64, self.backbone.multiple)

    def parts(self, stage: str) -> Iterable[nnx.Module]:
        if stage == "heads":
            return self.heads.values()
        if stage == "preliminary":
            return self.multi_task_decoder.preliminary_decoder.values()
        return (self.multi_task_decoder.invpt.invpt_stages[self.stages.index(stage) - 1],)

    def logits(self, images: jax.Array) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """Computes logits as published weights give them, with two channels for the tasks of the option `two_logits`.

        Args:
            images: `[B, H, W, 3]` normalised images.

        Returns:
            ({task: `[B, H/4, W/4, channels]`}, the preliminary ones {task: `[B, H/32, W/32, channels]`}).
        """
        if any(side % self.multiple for side in images.shape[1:3]):
            height, width = images.shape[1:3]
            raise ValueError(
                f"images of {height}x{width} pixels; model invpt takes sides that are multiples of {self.multiple} on "
                "this backbone. Resize or pad them"
            )
        features, preliminary = self.multi_task_decoder(self.backbone(images))
        return {task: self.heads[task](x) for task, x in features.items()}, preliminary

    def __call__(self, images: jax.Array) -> Outputs:
        """`[B, H, W, 3]` normalised images -> logits of the tasks, and the preliminary predictions "inter", `[B, H/32,
        W/32, channels]` with patches of 16 pixels.
        """
        logits, preliminary = (as_outputs(each, dict(self.num_outputs)) for each in self.logits(images))
        return Outputs({task: resize_like(x, images) for task, x in logits.items()}, {"inter": preliminary})


def _halved(x: jax.Array) -> jax.Array:
    return resize_bilinear(x, (x.shape[1] // 2, x.shape[2] // 2))


@register("invpt", options=InvPTOptions)
def build_invpt(parts: ModelParts, options: InvPTOptions) -> InvPT:
    """Builds an InvPT.

    Raises:
        ValueError: The configuration names a head, a regression, or auxiliary tasks besides the main ones, the backbone
            does not have four maps, or the sides of the network's inputs are not the multiples that the model takes.
    """
    parts.refuse_aux_tasks()
    parts.refuse_heads()
    model = InvPT(parts.plain_backbone(options.drop_path), parts.num_outputs, options, rngs=parts.rngs)
    multiple = model.multiple
    if parts.image_size is not None and any(side % multiple for side in parts.image_size):
        height, width = parts.image_size
        nearest = ",".join(str(max(1, round(side / multiple)) * multiple) for side in parts.image_size)
        raise ValueError(
            f"model invpt takes inputs whose sides are multiples of {multiple} on {parts.backbone_name}; these have "
            f"{height}x{width} pixels. Set data.image_size, --data.image_size={nearest} for example"
        )
    return model
