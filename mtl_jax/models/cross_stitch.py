"""Cross-stitch networks (arXiv 1604.03539)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_jax.backbones import Backbone
from mtl_jax.models.registry import ModelParts, register
from mtl_jax.models.soft_sharing import SoftSharing, SoftSharingOptions, make_columns
from mtl_jax.nn import recomputable


class ChannelScale(nnx.Module):
    """A learned factor for each channel: `[B, H, W, C] -> [B, H, W, C]`.

    Args:
        features: Number of channels C.
        value: Initial value of all factors.
    """

    def __init__(self, features: int, value: float):
        self.param = nnx.Param(jnp.full((features,), value))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * self.param[...].astype(x.dtype).reshape(1, 1, 1, -1)


class CrossStitchUnit(nnx.Module):
    """Linear mixture of the tasks' features (sec. 3.1, eq. 1): out[i] = sum over tasks j of a_ij * x[j].

    Each a_ij is a vector over the channels.

    Args:
        tasks: Names of the tasks in task order.
        features: Number of channels.
        alpha: Initial value of a_ii.
        beta: Initial value of a_ij for i != j.
    """

    def __init__(self, tasks: Sequence[str], features: int, *, alpha: float, beta: float):
        self.tasks = tuple(tasks)
        self.cross_stitch_unit = nnx.Dict(
            {
                i: nnx.Dict({j: ChannelScale(features, alpha if i == j else beta) for j in self.tasks})
                for i in self.tasks
            }
        )

    @recomputable
    def __call__(self, x: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """{task: `[B, H, W, C]`} -> {task: `[B, H, W, C]`}"""
        out = {}
        for i in self.tasks:
            terms = [self.cross_stitch_unit[i][j](x[j]) for j in self.tasks]
            out[i] = sum(terms[1:], start=terms[0])
        return out


class CrossStitch(SoftSharing):
    """A network per task, with a cross-stitch unit after every stage but the stem.

    Args:
        backbones: {task: backbone} in task order, all of one kind.
        heads: {task: head}.
        alpha: Initial weight of a task's own features.
        beta: Initial weight of the features of every other task.
    """

    fusion: ClassVar[str] = "cross_stitch"

    def __init__(
        self, backbones: Mapping[str, Backbone], heads: Mapping[str, nnx.Module], *, alpha: float, beta: float
    ):
        super().__init__(backbones, heads)
        stages = self.backbone[self.tasks[0]].stages[1:]
        self.cross_stitch = self.make_units(
            stages, lambda width: CrossStitchUnit(self.tasks, width, alpha=alpha, beta=beta)
        )


@register("cross_stitch", options=SoftSharingOptions, fusion=CrossStitch.fusion)
def build_cross_stitch(parts: ModelParts, options: SoftSharingOptions) -> CrossStitch:
    """Builds a cross-stitch network."""
    return CrossStitch(*make_columns(parts), alpha=options.alpha, beta=options.beta)
