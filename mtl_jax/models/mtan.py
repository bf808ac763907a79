"""MTAN (arXiv 1803.10704): a shared network with an attention mask per task and layer."""

from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_jax.backbones import Maps, ResNet
from mtl_jax.backbones.resnet import LAYERS, VARIANTS
from mtl_jax.models.base import MultiTaskModel
from mtl_jax.models.registry import ModelParts, NoOptions, register
from mtl_jax.nn import BatchNorm, Bottleneck, Conv, Numbered, Sequential, max_pool_2x2, recomputable, resize_like
from mtl_jax.outputs import Outputs


class Attention(Sequential):
    """A task's attention to the output of a layer (fig. 2): x * mask(inputs).

    The mask in (0, 1) is conv1x1 BN ReLU conv1x1 BN sigmoid.

    Args:
        in_features: Number of channels of the inputs together.
        features: Number of channels of the layer's output.
        rngs: Source of the initial weights.
    """

    def __init__(self, in_features: int, features: int, *, rngs: nnx.Rngs):
        middle = features // 4
        super().__init__(
            [
                Conv(in_features, middle, 1, use_bias=True, rngs=rngs),
                BatchNorm(middle),
                nnx.relu,
                Conv(middle, features, 1, use_bias=True, rngs=rngs),
                BatchNorm(features),
                nnx.sigmoid,
            ]
        )

    @recomputable
    def __call__(self, x: jax.Array, *inputs: jax.Array) -> jax.Array:
        """Layer's output `[B, H, W, C]` and inputs of the mask, of the same height and width -> `[B, H, W, C]`."""
        mask = super().__call__(jnp.concatenate(inputs, axis=-1))
        return mask * x


class Refinement(Sequential):
    """Brings attended maps to the width of the next layer, and to its resolution if that layer has a stride.

    Args:
        in_features: Number of channels of the attended map.
        features: Number of channels of the next layer's output.
        pools: True if the next layer halves the resolution.
        rngs: Source of the initial weights.
    """

    def __init__(self, in_features: int, features: int, pools: bool, *, rngs: nnx.Rngs):
        block = Bottleneck(in_features, features // Bottleneck.expansion, rngs=rngs)
        super().__init__([block, *[max_pool_2x2] * pools])

    @recomputable
    def __call__(self, x: jax.Array) -> jax.Array:
        return super().__call__(x)


class MTAN(MultiTaskModel):
    """Multi-task attention network on a ResNet.

    In each of layer1 to layer4 a task's mask multiplies the layer's output. The mask is computed from the map before
    the layer's last block and, from layer2 on, from the task's attended map of the layer before, refined. The tasks
    share the refinements: their batch norms see the tasks one after the other, in task order.

    Args:
        backbone: Backbone shared by all tasks.
        heads: {task: head over its attended maps} in task order.
        rngs: Source of the initial weights.
    """

    stages = (*(f"attention_{i + 1}" for i in range(len(LAYERS))), "heads")
    specific = stages
    attention = Numbered("attention_{}")  # 1 to 4: {task: Attention}
    refine = Numbered("refine_{}")  # 1 to 3, each between two layers

    def __init__(self, backbone: ResNet, heads: Mapping[str, nnx.Module], *, rngs: nnx.Rngs):
        self.tasks = tuple(heads)
        self.backbone = backbone
        self.heads = nnx.Dict(heads)
        for i, width in enumerate(backbone.widths, start=1):
            inputs = width if i == 1 else 2 * width
            self.attention[i] = nnx.Dict({task: Attention(inputs, width, rngs=rngs) for task in self.tasks})
            if i < len(LAYERS):
                pools = backbone.strides[i] > 1
                self.refine[i] = Refinement(width, backbone.widths[i], pools, rngs=rngs)

    def parts(self, stage: str) -> Iterable[nnx.Module]:
        if stage == "heads":
            return self.heads.values()
        i = self.stages.index(stage) + 1
        return [*self.attention[i].values(), *([self.refine[i - 1]] if i > 1 else [])]

    def __call__(self, images: jax.Array) -> Outputs:
        (x,) = self.backbone.run_stage("conv", (images,))
        attended: dict[str, jax.Array] = {}
        outputs: dict[str, dict[str, Maps]] = {task: {} for task in self.tasks}
        for i, layer in enumerate(LAYERS, start=1):
            before, x = self.backbone.split_stage(layer, x)
            for task in self.tasks:
                refined = [self.refine[i - 1](attended[task])] if i > 1 else []
                attended[task] = self.attention[i][task](x, before, *refined)
                outputs[task][layer] = (attended[task],)
        logits = {task: self.heads[task](self.backbone.select(outputs[task])) for task in self.tasks}
        return Outputs({task: resize_like(y, images) for task, y in logits.items()})


@register("mtan")
def build_mtan(parts: ModelParts, options: NoOptions) -> MTAN:
    """Builds an MTAN.

    Raises:
        ValueError: The backbone is not a ResNet.
    """
    parts.refuse_aux_tasks()
    backbone = parts.backbone()
    if not isinstance(backbone, ResNet):
        raise ValueError(
            f"model mtan attends inside the layers of a ResNet; model.backbone is {parts.backbone_name!r}, "
            f"it may be {', '.join(VARIANTS)}"
        )
    return MTAN(backbone, parts.heads(backbone), rngs=parts.rngs)
