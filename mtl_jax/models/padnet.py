"""PAD-Net (arXiv 1805.04409): intermediate predictions for auxiliary tasks, distilled into the main ones."""

from collections.abc import Mapping
from functools import partial
from operator import call

import jax
from flax import nnx
from flax.typing import Dtype

from mtl_jax.backbones import Backbone
from mtl_jax.heads import Fusion
from mtl_jax.models.base import MultiTaskModel
from mtl_jax.models.distillation import TaskDistillation
from mtl_jax.nn import Bottleneck, Conv, Sequential, resize_like

WIDTH = 256  # of every task's features


class InitialTaskPrediction(nnx.Module):
    """Two bottlenecks and a conv1x1 per auxiliary task: its features and its intermediate prediction (sec. 3.2)."""

    def __init__(self, in_features: int, num_outputs: Mapping[str, int], *, dtype: Dtype | None, rngs: nnx.Rngs):
        self.tasks = tuple(num_outputs)
        self.layers = nnx.Dict({task: Sequential(_bottlenecks(in_features, dtype, rngs)) for task in self.tasks})
        conv = partial(Conv, WIDTH, kernel_size=1, use_bias=True, dtype=dtype, rngs=rngs)
        self.conv_out = nnx.Dict({task: conv(number) for task, number in num_outputs.items()})

    def __call__(self, x: jax.Array) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """`[B, H, W, C]` -> ({task: `[B, H, W, 256]`}, {task: `[B, H, W, num_outputs]`})"""
        features = {task: self.layers[task](x) for task in self.tasks}
        return features, {task: self.conv_out[task](features[task]) for task in self.tasks}


class PADNet(MultiTaskModel):
    """Prediction-and-distillation network (fig. 2), with a backbone whose maps are fused into one.

    Args:
        backbone: where it returns several maps, they are resized to the finest, concatenated and mixed.
        num_outputs: {auxiliary task: logit channels} in task order; contains every main task.
        tasks: main tasks.

    Raises:
        ValueError: a main task is not among the auxiliary ones.
    """

    stages = ("fusion", "initial_predictions", "distillation", "heads")

    def __init__(
        self,
        backbone: Backbone,
        num_outputs: Mapping[str, int],
        tasks: tuple[str, ...],
        *,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        self.tasks = tasks
        self.backbone = Sequential([backbone, Fusion(backbone.channels, dtype=dtype, rngs=rngs)])
        self.initial_task_prediction_heads = InitialTaskPrediction(
            sum(backbone.channels), num_outputs, dtype=dtype, rngs=rngs
        )
        self.multi_modal_distillation = TaskDistillation(tasks, tuple(num_outputs), WIDTH, dtype=dtype, rngs=rngs)

        def head(number: int) -> Sequential:
            conv = Conv(WIDTH, number, 1, use_bias=True, dtype=dtype, rngs=rngs)
            return Sequential([*_bottlenecks(WIDTH, dtype, rngs), conv])

        self.heads = nnx.Dict({task: head(num_outputs[task]) for task in tasks})

    def backbones(self) -> tuple[Backbone, ...]:
        return (self.backbone[0],)

    def __call__(self, images: jax.Array) -> dict[str, jax.Array]:
        """`[B, H, W, 3]` normalised images -> {task: `[B, H, W, channels]`} for the main tasks, and
        "initial_<task>" `[B, H/4, W/4, channels]` for every auxiliary task (the size of the backbone's finest map).
        """
        backbone, fusion = self.backbone
        fused = self.run("fusion", call, fusion, backbone(images))
        features, predictions = self.run("initial_predictions", call, self.initial_task_prediction_heads, fused)
        distilled = self.run("distillation", call, self.multi_modal_distillation, features)
        out = {f"initial_{task}": prediction for task, prediction in predictions.items()}
        logits = {task: self.run("heads", call, self.heads[task], distilled[task]) for task in self.tasks}
        return out | {task: resize_like(x, images) for task, x in logits.items()}


def _bottlenecks(in_features: int, dtype: Dtype | None, rngs: nnx.Rngs) -> list[Bottleneck]:
    inner = WIDTH // Bottleneck.expansion
    return [Bottleneck(width, inner, dtype=dtype, rngs=rngs) for width in (in_features, WIDTH)]
