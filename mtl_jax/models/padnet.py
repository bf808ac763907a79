"""PAD-Net (arXiv 1805.04409): intermediate predictions for auxiliary tasks, distilled into the main ones."""

from collections.abc import Iterable, Mapping, Sequence

import jax
from flax import nnx

from mtl_jax.backbones import Backbone
from mtl_jax.heads import Fusion
from mtl_jax.models.base import MultiTaskModel
from mtl_jax.models.distillation import TaskDistillation
from mtl_jax.models.registry import ModelParts, NoOptions, register
from mtl_jax.nn import Bottleneck, Conv, Sequential, recomputable, resize_like
from mtl_jax.outputs import Outputs

WIDTH = 256  # channels of every task's features


class InitialTaskPrediction(nnx.Module):
    """Features and an intermediate prediction for each auxiliary task: two bottlenecks and a conv1x1 (sec. 3.2).

    Args:
        in_features: Number of channels of the input.
        num_outputs: {auxiliary task: number of logit channels}.
        rngs: Source of the initial weights.
    """

    def __init__(self, in_features: int, num_outputs: Mapping[str, int], *, rngs: nnx.Rngs):
        self.tasks = tuple(num_outputs)
        self.layers = nnx.Dict({task: Sequential(_bottlenecks(in_features, rngs)) for task in self.tasks})
        self.conv_out = nnx.Dict({t: Conv(WIDTH, n, 1, use_bias=True, rngs=rngs) for t, n in num_outputs.items()})

    @recomputable
    def __call__(self, x: jax.Array) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """`[B, H, W, C]` -> ({task: `[B, H, W, 256]`}, {task: `[B, H, W, num_outputs]`})"""
        features = {task: self.layers[task](x) for task in self.tasks}
        return features, {task: self.conv_out[task](features[task]) for task in self.tasks}


class FinalPrediction(Sequential):
    """Head over a task's distilled features: two bottlenecks and a conv1x1.

    Args:
        num_outputs: Number of logit channels.
        rngs: Source of the initial weights.
    """

    def __init__(self, num_outputs: int, *, rngs: nnx.Rngs):
        conv = Conv(WIDTH, num_outputs, 1, use_bias=True, rngs=rngs)
        super().__init__([*_bottlenecks(WIDTH, rngs), conv])

    @recomputable
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, 256] -> [B, H, W, num_outputs]`"""
        return super().__call__(x)


class PADNet(MultiTaskModel):
    """Prediction-and-distillation network (fig. 2).

    The maps of the backbone are fused into one at the finest resolution, from which every auxiliary task has features
    and an intermediate prediction. The main tasks distil the features of the others and predict again.

    Args:
        backbone: Network from images to one or several feature maps.
        num_outputs: {auxiliary task: number of logit channels} in task order, the main tasks among them.
        tasks: Main tasks in task order.
        rngs: Source of the initial weights.

    Raises:
        ValueError: A main task is not among the auxiliary ones.
    """

    stages = ("fusion", "initial_predictions", "distillation", "heads")

    def __init__(self, backbone: Backbone, num_outputs: Mapping[str, int], tasks: Sequence[str], *, rngs: nnx.Rngs):
        self.tasks = tuple(tasks)
        self.backbone = Sequential([backbone, Fusion(backbone.channels, rngs=rngs)])
        self.initial_task_prediction_heads = InitialTaskPrediction(sum(backbone.channels), num_outputs, rngs=rngs)
        self.multi_modal_distillation = TaskDistillation(self.tasks, tuple(num_outputs), WIDTH, rngs=rngs)
        self.heads = nnx.Dict({task: FinalPrediction(num_outputs[task], rngs=rngs) for task in self.tasks})

    def backbones(self) -> tuple[Backbone, ...]:
        return (self.backbone[0],)

    def parts(self, stage: str) -> Iterable[nnx.Module]:
        single = {
            "fusion": self.backbone[1],
            "initial_predictions": self.initial_task_prediction_heads,
            "distillation": self.multi_modal_distillation,
        }
        return [single[stage]] if stage in single else self.heads.values()

    def __call__(self, images: jax.Array) -> Outputs:
        """`[B, H, W, 3]` normalised images -> logits of the main tasks, and the intermediate predictions "deepsup" of
        the auxiliary tasks, at the size of the backbone's finest map.
        """
        fused = self.backbone(images)
        features, initial = self.initial_task_prediction_heads(fused)
        distilled = self.multi_modal_distillation(features)
        logits = {task: self.heads[task](distilled[task]) for task in self.tasks}
        return Outputs({task: resize_like(x, images) for task, x in logits.items()}, {"deepsup": initial})


def _bottlenecks(in_features: int, rngs: nnx.Rngs) -> list[Bottleneck]:
    inner = WIDTH // Bottleneck.expansion
    return [Bottleneck(width, inner, rngs=rngs) for width in (in_features, WIDTH)]


@register("pad_net")
def build_pad_net(parts: ModelParts, options: NoOptions) -> PADNet:
    """Builds a PAD-Net.

    Raises:
        ValueError: The configuration names a head or a regression.
    """
    parts.refuse_heads()
    return PADNet(parts.backbone(), parts.num_aux_outputs, parts.tasks, rngs=parts.rngs)
