"""What training, evaluation and weight files expect of a model."""

from typing import Any, ClassVar

import jax
from flax import nnx

from mtl_jax.backbones import Backbone
from mtl_jax.nn import Staged


class MultiTaskModel(Staged):
    """`[B, H, W, 3]` normalised images to {task: logits `[B, H, W, channels]`}, and more where a method has more.

    Attributes:
        fusion: name of the submodule through which the tasks' networks exchange features; empty where none does. Its
            parameters may learn at another rate.
        starts_from_single_task: the model consists of single-task models and a fusion.
        stages: beside the backbones' own.
        specific: submodules each part of which serves a single task; the others are shared.
    """

    fusion: ClassVar[str] = ""
    starts_from_single_task: ClassVar[bool] = False
    stages: tuple[str, ...] = ("heads",)
    specific: tuple[str, ...] = ("heads",)
    backbone: Any
    heads: Any

    def backbones(self) -> tuple[Backbone, ...]:
        """What pretrained weights are for."""
        return (self.backbone,)

    def __call__(self, images: jax.Array) -> dict[str, Any]:
        raise TypeError(f"{type(self).__name__} does not define __call__")


def training_view(model: nnx.Module, rngs: nnx.Rngs, batch_norm_groups: int = 1) -> nnx.Module:
    """The model normalising with the batch's statistics and dropping out, with the same variables.

    Args:
        rngs: holds the stream "dropout".
        batch_norm_groups: parts of the batch that batch norm takes the statistics of, see `mtl_jax.nn.BatchNorm`.
    """
    return nnx.view(
        model,
        use_running_average=False,
        batch_norm_groups=batch_norm_groups,
        deterministic=False,
        rngs=rngs,
        raise_if_not_found=False,
    )


def evaluation_view(model: nnx.Module) -> nnx.Module:
    """The model normalising with its running statistics and dropping nothing out, with the same variables."""
    return nnx.view(model, use_running_average=True, deterministic=True, remat=(), raise_if_not_found=False)
