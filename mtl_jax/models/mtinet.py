"""MTI-Net (arXiv 2001.06902): multi-scale task interaction with feature propagation."""

from collections.abc import Mapping, Sequence
from operator import call

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from mtl_jax.backbones import Backbone
from mtl_jax.models.base import MultiTaskModel
from mtl_jax.models.distillation import TaskDistillation
from mtl_jax.nn import BasicBlock, Conv, Sequential, SqueezeExcite, resize_like


class InitialTaskPrediction(nnx.Module):
    """Features and a prediction for every auxiliary task at one scale (sec. 3.2).

    Two basic blocks on the backbone's map, joined, where there is a coarser scale, by the features propagated from it.

    Args:
        in_features: width of the backbone's map at this scale.
        propagated: width of the propagated features; 0 at the coarsest scale.
        num_outputs: {auxiliary task: logit channels}.
    """

    def __init__(
        self,
        in_features: int,
        propagated: int,
        num_outputs: Mapping[str, int],
        *,
        dtype: Dtype | None,
        rngs: nnx.Rngs,
    ):
        self.tasks = tuple(num_outputs)
        self.refinement = nnx.Dict(
            {
                task: Sequential(
                    [
                        BasicBlock(in_features + propagated, in_features, dtype=dtype, rngs=rngs),
                        BasicBlock(in_features, in_features, dtype=dtype, rngs=rngs),
                    ]
                )
                for task in self.tasks
            }
        )
        self.decoders = nnx.Dict(
            {t: Conv(in_features, n, 1, use_bias=True, dtype=dtype, rngs=rngs) for t, n in num_outputs.items()}
        )

    def __call__(self, x: jax.Array, propagated: Mapping[str, jax.Array] | None):
        """`[B, H, W, C]`, {task: [B, H/2, W/2, C']} -> ({task: [B, H, W, C]}, {task: [B, H, W, num_outputs]})."""
        features = {}
        for task in self.tasks:
            inputs = x if propagated is None else jnp.concatenate([x, resize_like(propagated[task], x)], axis=-1)
            features[task] = self.refinement[task](inputs)
        return features, {task: self.decoders[task](features[task]) for task in self.tasks}


class FeaturePropagation(nnx.Module):
    """Passes what the tasks know of each other from one scale to the next finer one (sec. 3.3).

    The tasks' concatenated features are weighted by a softmax, reduced to a shared map, and each task adds the part of
    it that its squeeze-and-excitation selects. The softmax runs over groups of N *adjacent* channels of the task-major
    concatenation, not across the N tasks: the published numbers come from that.
    """

    def __init__(self, tasks: Sequence[str], features: int, *, dtype: Dtype | None, rngs: nnx.Rngs):
        self.tasks = tuple(tasks)
        total = len(self.tasks) * features
        self.non_linear = Sequential(
            [
                BasicBlock(total, total // 4, dtype=dtype, rngs=rngs),
                BasicBlock(total // 4, total // 4, dtype=dtype, rngs=rngs),
                Conv(total // 4, total, 1, use_bias=True, dtype=dtype, rngs=rngs),
            ]
        )
        self.dimensionality_reduction = BasicBlock(total, features, dtype=dtype, rngs=rngs)
        self.se = nnx.Dict({task: SqueezeExcite(features, dtype=dtype, rngs=rngs) for task in self.tasks})

    def __call__(self, x: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """{task: [B, H, W, C]} -> {task: [B, H, W, C]}"""
        concatenated = jnp.concatenate([x[task] for task in self.tasks], axis=-1)
        scores = self.non_linear(concatenated)
        groups = scores.reshape(*scores.shape[:-1], -1, len(self.tasks))
        attention = nnx.softmax(groups, axis=-1).reshape(scores.shape)
        shared = self.dimensionality_reduction(concatenated * attention)
        return {task: self.se[task](shared) + x[task] for task in self.tasks}


class MTINet(MultiTaskModel):
    """Multi-scale task interaction network (fig. 3).

    From the coarsest scale to the finest: initial predictions for all auxiliary tasks, fed by the features propagated
    from the scale before. At every scale the main tasks then distil what the others hold, and a head per main task
    reads its four maps.

    Args:
        backbone: returns four maps, finest first, of the widths `backbone.channels`.
        num_outputs: {auxiliary task: logit channels} in task order; contains every main task.
        heads: {main task: head over the four maps}.

    Raises:
        ValueError: a main task is not among the auxiliary ones.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_outputs: Mapping[str, int],
        heads: Mapping[str, nnx.Module],
        *,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        channels = backbone.channels
        aux_tasks = tuple(num_outputs)
        self.tasks = tuple(heads)
        self.scales = tuple(range(len(channels)))
        self.stages = (*(f"scale_{scale}" for scale in self.scales), "heads")
        self.backbone = backbone
        for scale in self.scales:
            width = channels[scale]
            coarsest = scale == self.scales[-1]
            propagated = 0 if coarsest else channels[scale + 1]
            prediction = InitialTaskPrediction(width, propagated, num_outputs, dtype=dtype, rngs=rngs)
            distillation = TaskDistillation(self.tasks, aux_tasks, width, dtype=dtype, rngs=rngs)
            setattr(self, f"scale_{scale}", prediction)
            setattr(self, f"distillation_scale_{scale}", distillation)
            if scale > 0:
                setattr(self, f"fpm_scale_{scale}", FeaturePropagation(aux_tasks, width, dtype=dtype, rngs=rngs))
        self.heads = nnx.Dict(heads)

    def __call__(self, images: jax.Array) -> dict:
        """`[B, H, W, 3]` normalised images -> {task: [B, H, W, channels]} for the main tasks, and under
        "deep_supervision" {"scale_<k>": {auxiliary task: [B, H / 2^(k+2), W / 2^(k+2), channels]}}.
        """
        maps = self.backbone(images)
        propagated = None
        deep_supervision, distilled = {}, {}
        for scale in reversed(self.scales):
            name = f"scale_{scale}"
            features, predictions = self.run(name, call, getattr(self, name), maps[scale], propagated)
            deep_supervision[name] = predictions
            distilled[scale] = self.run(name, call, getattr(self, f"distillation_{name}"), features)
            if scale > 0:
                propagated = self.run(name, call, getattr(self, f"fpm_{name}"), features)
        out: dict = {}
        for task in self.tasks:
            logits = self.run("heads", call, self.heads[task], [distilled[scale][task] for scale in self.scales])
            out[task] = resize_like(logits, images)
        return out | {"deep_supervision": deep_supervision}
