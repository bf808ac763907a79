"""Cross-stitch networks (arXiv 1604.03539)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_jax.backbones import Backbone
from mtl_jax.models.soft_sharing import SoftSharing


class ChannelScale(nnx.Module):
    """x * param, one number for each channel."""

    def __init__(self, features: int, value: float):
        self.param = nnx.Param(jnp.full((features,), value))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * self.param[...].astype(x.dtype).reshape(1, 1, 1, -1)


class CrossStitchUnit(nnx.Module):
    """out[i] = sum over tasks j of a_ij * x[j], with a vector a_ij over the channels (sec. 3.1, eq. 1).

    Args:
        alpha, beta: initial values of a_ij for i = j, and for i != j.
    """

    def __init__(self, tasks: Sequence[str], features: int, *, alpha: float, beta: float):
        self.tasks = tuple(tasks)
        self.cross_stitch_unit = nnx.Dict(
            {
                i: nnx.Dict({j: ChannelScale(features, alpha if i == j else beta) for j in self.tasks})
                for i in self.tasks
            }
        )

    def __call__(self, x: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """{task: [B, H, W, C]} -> {task: [B, H, W, C]}"""
        out = {}
        for i in self.tasks:
            terms = [self.cross_stitch_unit[i][j](x[j]) for j in self.tasks]
            out[i] = sum(terms[1:], start=terms[0])
        return out


class CrossStitch(SoftSharing):
    """A network per task with a cross-stitch unit after every stage but the stem.

    Args:
        backbones: {task: backbone}, all of one kind, in task order.
        heads: {task: head}.
        alpha, beta: initial weights of a task's own features and of those of the others.
    """

    fusion: ClassVar[str] = "cross_stitch"

    def __init__(
        self, backbones: Mapping[str, Backbone], heads: Mapping[str, nnx.Module], *, alpha: float, beta: float
    ):
        tasks = tuple(backbones)
        super().__init__(
            backbones,
            heads,
            backbones[tasks[0]].stages[1:],
            lambda width: CrossStitchUnit(tasks, width, alpha=alpha, beta=beta),
        )
