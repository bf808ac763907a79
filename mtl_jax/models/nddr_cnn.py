"""NDDR-CNN (arXiv 1801.08297): feature fusion by neural discriminative dimensionality reduction."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mtl_jax.backbones import Backbone
from mtl_jax.models.registry import ModelParts, register
from mtl_jax.models.soft_sharing import SoftSharing, SoftSharingOptions, make_columns
from mtl_jax.nn import BatchNorm, Conv, Sequential, recomputable

MOMENTUM = 0.05  # for the batch norms of the NDDR layers


class NDDRLayer(nnx.Module):
    """For each task conv1x1 BN ReLU of the concatenated features of all tasks (sec. 3.2, fig. 2).

    Args:
        tasks: Names of the tasks in task order.
        features: Number of channels of each task's features.
        alpha: The kernel starts as alpha times the identity on the task's own features.
        beta: The kernel starts as beta times the identity on the features of every other task.
        rngs: Source of the initial weights.
    """

    def __init__(self, tasks: Sequence[str], features: int, *, alpha: float, beta: float, rngs: nnx.Rngs):
        self.tasks = tuple(tasks)

        def diagonal(own: str):
            blocks = [(alpha if task == own else beta) * np.eye(features, dtype=np.float32) for task in self.tasks]
            return lambda key, shape: jnp.asarray(np.concatenate(blocks)).reshape(shape)

        def layer(task: str) -> Sequential:
            conv = Conv(len(self.tasks) * features, features, 1, kernel_init=diagonal(task), rngs=rngs)
            return Sequential([conv, BatchNorm(features, momentum=MOMENTUM), nnx.relu])

        self.layer = nnx.Dict({task: layer(task) for task in self.tasks})

    @recomputable
    def __call__(self, x: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """{task: `[B, H, W, C]`} -> {task: `[B, H, W, C]`}"""
        concatenated = jnp.concatenate([x[task] for task in self.tasks], axis=-1)
        return {task: self.layer[task](concatenated) for task in self.tasks}


class NDDRCNN(SoftSharing):
    """A network per task, with an NDDR layer after every stage, the stem included.

    Args:
        backbones: {task: backbone} in task order, all of one kind.
        heads: {task: head}.
        alpha: Initial weight of a task's own features.
        beta: Initial weight of the features of every other task.
        rngs: Source of the initial weights.
    """

    fusion: ClassVar[str] = "nddr"

    def __init__(
        self,
        backbones: Mapping[str, Backbone],
        heads: Mapping[str, nnx.Module],
        *,
        alpha: float,
        beta: float,
        rngs: nnx.Rngs,
    ):
        super().__init__(backbones, heads)
        stages = self.backbone[self.tasks[0]].stages
        self.nddr = self.make_units(
            stages, lambda width: NDDRLayer(self.tasks, width, alpha=alpha, beta=beta, rngs=rngs)
        )


@register("nddr_cnn", options=SoftSharingOptions, fusion=NDDRCNN.fusion)
def build_nddr_cnn(parts: ModelParts, options: SoftSharingOptions) -> NDDRCNN:
    """Builds an NDDR-CNN."""
    return NDDRCNN(*make_columns(parts), alpha=options.alpha, beta=options.beta, rngs=parts.rngs)
