"""MTAN (arXiv 1803.10704): a shared network with an attention mask per task and stage."""

from collections.abc import Mapping, Sequence
from operator import call

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from mtl_jax.backbones import ResNet
from mtl_jax.backbones.resnet import LAYERS
from mtl_jax.models.base import MultiTaskModel
from mtl_jax.nn import BatchNorm, Bottleneck, Conv, Sequential, max_pool_2x2, resize_like


def _attention(in_features: int, features: int, dtype: Dtype | None, rngs: nnx.Rngs) -> Sequential:
    """A mask in (0, 1): conv1x1 BN ReLU conv1x1 BN sigmoid (fig. 2)."""
    middle = features // 4
    return Sequential(
        [
            Conv(in_features, middle, 1, use_bias=True, dtype=dtype, rngs=rngs),
            BatchNorm(middle, dtype=dtype),
            nnx.relu,
            Conv(middle, features, 1, use_bias=True, dtype=dtype, rngs=rngs),
            BatchNorm(features, dtype=dtype),
            nnx.sigmoid,
        ]
    )


def _refinement(in_features: int, features: int, pools: bool, dtype: Dtype | None, rngs: nnx.Rngs) -> Sequential:
    """Brings attended maps to the next layer's width, and to its resolution where that layer has a stride."""
    block = Bottleneck(in_features, features // Bottleneck.expansion, dtype=dtype, rngs=rngs)
    return Sequential([block, *[max_pool_2x2] * pools])


def _attend(
    mask: Sequential, refine: Sequential | None, before: jax.Array, previous: jax.Array | None, x: jax.Array
) -> jax.Array:
    """A layer's output `x` as a task attends to it.

    Args:
        before: map before the layer's last block.
        previous: the task's attended map of the layer before, for `refine`; None in the first.
    """
    inputs = before if refine is None else jnp.concatenate([before, refine(previous)], axis=-1)
    return mask(inputs) * x


class MTAN(MultiTaskModel):
    """Multi-task attention network on a ResNet.

    In each of layer1 to layer4 a task's mask multiplies the layer's output. It is computed from the map before the
    layer's last block and, from layer2 on, from the task's attended map of the layer before, refined. The refinements
    between layers are shared: their batch norm sees the tasks one after the other, in task order.

    Args:
        backbone: shared by all tasks.
        heads: {task: head over its attended maps} in task order.
    """

    def __init__(
        self, backbone: ResNet, heads: Mapping[str, nnx.Module], *, dtype: Dtype | None = None, rngs: nnx.Rngs
    ):
        self.tasks = tuple(heads)
        attention = tuple(f"attention_{i + 1}" for i in range(len(LAYERS)))
        self.stages = self.specific = (*attention, "heads")
        self.backbone = backbone
        self.heads = nnx.Dict(heads)
        widths = backbone.widths
        for i, width in enumerate(widths):
            inputs = width if i == 0 else 2 * width
            masks = {task: _attention(inputs, width, dtype, rngs) for task in self.tasks}
            setattr(self, f"attention_{i + 1}", nnx.Dict(masks))
            if i + 1 < len(widths):
                pools = backbone.strides[i + 1] > 1
                setattr(self, f"refine_{i + 1}", _refinement(width, widths[i + 1], pools, dtype, rngs))

    def __call__(self, images: jax.Array) -> dict[str, jax.Array]:
        (x,) = self.backbone.run_stage("conv", (images,))
        attended: dict[str, dict[str, Sequence[jax.Array]]] = {task: {} for task in self.tasks}
        for i, layer in enumerate(LAYERS):
            before, x = self.backbone.split_stage(layer, x)
            name = f"attention_{i + 1}"
            masks, refine = getattr(self, name), getattr(self, f"refine_{i}", None)
            for task in self.tasks:
                (previous,) = attended[task].get(LAYERS[i - 1], (None,))
                attended[task][layer] = (self.run(name, _attend, masks[task], refine, before, previous, x),)
        out = {}
        for task in self.tasks:
            logits = self.run("heads", call, self.heads[task], self.backbone.select(attended[task]))
            out[task] = resize_like(logits, images)
        return out
