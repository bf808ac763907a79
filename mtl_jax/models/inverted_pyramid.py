"""The inverted pyramid of InvPT (arXiv 2203.07997): transformer blocks over the tokens of all tasks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_jax.nn import (
    BatchNorm,
    Conv,
    DepthwiseConv,
    LayerNorm,
    Linear,
    Mlp,
    Sequential,
    freeze_parameters,
    recomputable,
    resize_bilinear,
)
from mtl_jax.nn.init import trunc_normal

STAGES = 3  # each has twice the resolution of the one before
HEADS = 2  # of the attention in each stage
EPSILON = 1e-5  # of the layer norms
_Linear = partial(Linear, kernel_init=trunc_normal)


class MessagePassingAttention(nnx.Module):
    """Self-attention over the tokens of all tasks, with attention scores passed on from stage to stage.

    Queries come from a strided convolution of each task's map, keys and values from its average pooling, so that all
    stages have as many keys. The scores, divided by the root of all channels, are mixed with those of the stage before
    by a conv1x1 over the heads: cross-scale message passing.

    Args:
        tasks: Number of tasks T.
        features: Number of channels C.
        stage: Number of the stage from 0. The first stage has nothing to mix.
        rngs: Source of the initial weights.
    """

    def __init__(self, tasks: int, features: int, stage: int, *, rngs: nnx.Rngs):
        self.conv_proj_q = nnx.List([_QueryConv(features, rngs=rngs) for _ in range(tasks)])
        self.proj_q, self.proj_k, self.proj_v, self.proj = (_Linear(features, features, rngs=rngs) for _ in range(4))
        fuse = Conv(2 * HEADS, HEADS, 1, use_bias=True, rngs=rngs)
        self.fuse_attn = fuse if stage else freeze_parameters(fuse)  # published weights have it in every stage
        self.window = 2 ** (stage + 1)

    def __call__(self, y: jax.Array, message: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Attends.

        Args:
            y: `[B, T, h, w, C]` maps of the tasks.
            message: Scores of the stage before, `[B, T * h/4 * w/4, heads, keys]`; None in the first stage.

        Returns:
            What is added to the maps, `[B, T, h, w, C]`, and the scores of this stage, `[B, T * h/2 * w/2, heads,
            keys]`.
        """
        batch, tasks, height, width, features = y.shape
        queries = _each(self.conv_proj_q, y)
        pooled = _pooled(y, self.window)
        q, k, v = (
            project(x).reshape(batch, -1, HEADS, features // HEADS)
            for project, x in ((self.proj_q, queries), (self.proj_k, pooled), (self.proj_v, pooled))
        )
        scores = jnp.einsum("bnhd,bmhd->bnhm", q, k) * features**-0.5
        if message is not None:
            maps = message.reshape(batch, tasks, height // 4, width // 4, -1)
            enlarged = _each([_doubled] * tasks, maps)
            both = jnp.concatenate([scores, enlarged.reshape(scores.shape)], axis=2)
            scores = jnp.moveaxis(self.fuse_attn(jnp.moveaxis(both, 2, 3)), 3, 2)
        wide = jnp.promote_types(scores.dtype, jnp.float32)
        attention = nnx.softmax(scores.astype(wide)).astype(v.dtype)
        attended = jnp.einsum("bnhm,bmhd->bnhd", attention, v)
        out = self.proj(attended.reshape(batch, tasks, height // 2, width // 2, features))
        return _each([_doubled] * tasks, out), scores


class _QueryConv(nnx.Module):
    """Depthwise conv3x3 at stride 2 and batch norm: `[B, h, w, C] -> [B, h/2, w/2, C]`."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.conv = DepthwiseConv(features, 3, stride=2, use_bias=False, rngs=rngs)
        self.bn = BatchNorm(features)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.bn(self.conv(x))


class Block(nnx.Module):
    """A transformer block over the tokens of all tasks: x += attn(norm1(x)), then x += mlp(norm2(x)).

    Args:
        tasks: Number of tasks T.
        features: Number of channels C.
        stage: Number of the stage from 0.
        rngs: Source of the initial weights.
    """

    def __init__(self, tasks: int, features: int, stage: int, *, rngs: nnx.Rngs):
        self.norm1 = LayerNorm(features, epsilon=EPSILON)
        self.attn = MessagePassingAttention(tasks, features, stage, rngs=rngs)
        self.norm2 = LayerNorm(features, epsilon=EPSILON)
        self.mlp = Mlp(features, 4 * features, rngs=rngs)

    def __call__(self, x: jax.Array, message: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """`[B, T, h, w, C]`, scores of the stage before -> `[B, T, h, w, C]`, scores of this stage"""
        attended, scores = self.attn(self.norm1(x), message)
        x = x + attended
        return x + self.mlp(self.norm2(x)), scores


class _Enlarging(nnx.Module):
    """Doubles the sides of a task's map and reduces its channels: two conv3x3 with dilation 2, BN and ReLU."""

    def __init__(self, in_features: int, features: int, *, rngs: nnx.Rngs):
        conv = partial(Conv, dilation=2, rngs=rngs)
        first = [_doubled, conv(in_features, features, 3), BatchNorm(features), nnx.relu]
        self.proj = Sequential([*first, conv(features, features, 3), BatchNorm(features), nnx.relu])

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, h, w, in_features] -> [B, 2h, 2w, features]`"""
        return self.proj(x)


class Stage(nnx.Module):
    """A stage of the decoder, the UP-Transformer block: enlarges the maps, adds the encoder's, and joins the tasks.

    Args:
        tasks: Number of tasks T.
        in_features: Number of channels of the stage before.
        features: Number of channels C.
        stage: Number of the stage from 0. The first one does not enlarge.
        rngs: Source of the initial weights.
    """

    def __init__(self, tasks: int, in_features: int, features: int, stage: int, *, rngs: nnx.Rngs):
        enlarging = [_Enlarging(in_features, features, rngs=rngs) for _ in range(tasks if stage else 0)]
        self.patch_embed = nnx.List(enlarging)
        self.blocks = nnx.List([Block(tasks, features, stage, rngs=rngs)])

    @recomputable
    def __call__(
        self, x: jax.Array, encoder: jax.Array | None, message: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Computes the maps of the stage.

        Args:
            x: `[B, T, h, w, in_features]` maps of the tasks.
            encoder: Map of the encoder `[B, 2h, 2w, C]`, the same for all tasks; None in the first stage.
            message: Scores of the stage before; None in the first stage.

        Returns:
            The maps of the tasks, `[B, T, 2h, 2w, C]`, or `[B, T, h, w, C]` in the first stage, and the scores.
        """
        if encoder is not None:
            x = _each(self.patch_embed, x) + encoder[:, None]
        (block,) = self.blocks
        return block(x, message)


class InvertedPyramid(nnx.Module):
    """The stages of the decoder, and a map for each task from the maps of all stages.

    Args:
        num_outputs: {task: number of channels of its preliminary prediction} in the order of published weights.
        features: Number of channels of a task's preliminary features.
        width: Number of channels of the first stage and of the result.
        rngs: Source of the initial weights.
    """

    def __init__(self, num_outputs: Mapping[str, int], features: int, width: int, *, rngs: nnx.Rngs):
        self.tasks = tuple(num_outputs)
        tasks = len(num_outputs)
        widths = [width // 2**stage for stage in range(STAGES)]

        def pointwise(channels: int) -> Conv:
            return Conv(channels, width, 1, use_bias=True, rngs=rngs)

        def result() -> Sequential:
            conv = Conv(width, width, 3, use_bias=True, kernel_init=trunc_normal, rngs=rngs)
            return Sequential([conv, BatchNorm(width), nnx.relu])

        self.mix_proj = nnx.Dict({t: Sequential([pointwise(features + n)]) for t, n in num_outputs.items()})
        self.invpt_stages = nnx.List(
            [Stage(tasks, widths[max(s - 1, 0)], widths[s], s, rngs=rngs) for s in range(STAGES)]
        )
        self.norm_mts = nnx.List([LayerNorm(tasks * channels, epsilon=EPSILON) for channels in widths])
        self.redu_chan = nnx.List([nnx.List([pointwise(channels) for _ in range(tasks)]) for channels in widths])
        self.mt_proj = nnx.Dict({task: result() for task in self.tasks})
        # Published weights have these layers, too. Nothing reads their results.
        self.norm_mt = freeze_parameters(LayerNorm(tasks * widths[-1], epsilon=EPSILON))
        freeze_parameters(self.redu_chan[0])

    def __call__(
        self,
        features: Mapping[str, jax.Array],
        predictions: Mapping[str, jax.Array],
        encoder: Sequence[jax.Array | None],
    ) -> dict[str, jax.Array]:
        """Computes a map for each task.

        Args:
            features: {task: preliminary features `[B, h, w, features]`}.
            predictions: {task: preliminary prediction `[B, h, w, channels]`}.
            encoder: The map of the encoder that each stage adds, None for the first stage.

        Returns:
            {task: `[B, 8h, 8w, C]`}
        """
        mixed = [self.mix_proj[t](jnp.concatenate([features[t], predictions[t]], axis=-1)) for t in self.tasks]
        height, width = mixed[0].shape[1:3]
        x, message = jnp.stack(mixed, axis=1), None
        scales = []
        for number, stage in enumerate(self.invpt_stages):
            x, message = stage(x, encoder[number], message)
            maps = [resize_bilinear(y, (8 * height, 8 * width)) for y in self._normalised(number, x)]
            scales.append(maps)
        return {task: self.mt_proj[task](sum(maps)) for task, *maps in zip(self.tasks, *scales, strict=True)}

    def _normalised(self, stage: int, x: jax.Array) -> list[jax.Array]:
        """`[B, T, h, w, C_stage]` -> `[B, h, w, C]` of each task, normalised over the channels of all tasks."""
        by_pixel = jnp.moveaxis(x, 1, 3)
        joint = by_pixel.reshape(*by_pixel.shape[:3], -1)
        normalised = self.norm_mts[stage](joint).reshape(by_pixel.shape)
        maps = [normalised[:, :, :, i] for i in range(len(self.tasks))]
        return [self.redu_chan[stage][i](y) for i, y in enumerate(maps)] if stage else maps


def _each(functions: Iterable[Callable[[jax.Array], jax.Array]], x: jax.Array) -> jax.Array:
    """Calls the function of each task with its map: `[B, T, h, w, C] -> [B, T, h', w', C']`."""
    return jnp.stack([function(x[:, i]) for i, function in enumerate(functions)], axis=1)


def _doubled(x: jax.Array) -> jax.Array:
    return resize_bilinear(x, (2 * x.shape[1], 2 * x.shape[2]))


def _pooled(x: jax.Array, window: int) -> jax.Array:
    """Averages windows: `[B, T, h, w, C] -> [B, T, h/window, w/window, C]`."""
    batch, tasks, height, width, features = x.shape
    windows = x.reshape(batch, tasks, height // window, window, width // window, window, features)
    return windows.mean((3, 5))
