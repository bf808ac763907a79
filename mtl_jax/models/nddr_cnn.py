"""NDDR-CNN (arXiv 1801.08297): feature fusion by discriminative dimensionality reduction."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.typing import Dtype

from mtl_jax.backbones import Backbone
from mtl_jax.models.soft_sharing import SoftSharing
from mtl_jax.nn import BatchNorm, Conv, Sequential

MOMENTUM = 0.05  # of the batch norm in the fusion layers


class NDDRLayer(nnx.Module):
    """Per task conv1x1 BN ReLU of all tasks' concatenated features (sec. 3.2, fig. 2).

    Args:
        alpha, beta: the kernel starts as alpha times the identity on the task's own block and beta times the identity
            on every other one.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        features: int,
        *,
        alpha: float,
        beta: float,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        self.tasks = tuple(tasks)

        def diagonal(own: str):
            blocks = [(alpha if task == own else beta) * np.eye(features, dtype=np.float32) for task in self.tasks]
            return lambda key, shape: jnp.asarray(np.concatenate(blocks)).reshape(shape)

        def layer(task: str) -> Sequential:
            width = len(self.tasks) * features
            conv = Conv(width, features, 1, kernel_init=diagonal(task), dtype=dtype, rngs=rngs)
            return Sequential([conv, BatchNorm(features, momentum=MOMENTUM, dtype=dtype), nnx.relu])

        self.layer = nnx.Dict({task: layer(task) for task in self.tasks})

    def __call__(self, x: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """{task: [B, H, W, C]} -> {task: [B, H, W, C]}"""
        concatenated = jnp.concatenate([x[task] for task in self.tasks], axis=-1)
        return {task: self.layer[task](concatenated) for task in self.tasks}


class NDDRCNN(SoftSharing):
    """A network per task with an NDDR layer after every stage, the stem included.

    Args:
        backbones: {task: backbone}, all of one kind, in task order.
        heads: {task: head}.
        alpha, beta: initial weights of a task's own features and of those of the others.
    """

    fusion: ClassVar[str] = "nddr"

    def __init__(
        self,
        backbones: Mapping[str, Backbone],
        heads: Mapping[str, nnx.Module],
        *,
        alpha: float,
        beta: float,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        tasks = tuple(backbones)
        super().__init__(
            backbones,
            heads,
            backbones[tasks[0]].stages,
            lambda width: NDDRLayer(tasks, width, alpha=alpha, beta=beta, dtype=dtype, rngs=rngs),
        )
