"""MTI-Net (arXiv 2001.06902): multi-scale task interaction with feature propagation."""

from collections.abc import Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_jax.backbones import Backbone
from mtl_jax.models.base import MultiTaskModel
from mtl_jax.models.distillation import TaskDistillation
from mtl_jax.models.registry import ModelParts, NoOptions, register
from mtl_jax.nn import BasicBlock, Conv, Numbered, Sequential, SqueezeExcite, recomputable, resize_like
from mtl_jax.outputs import Outputs


class InitialTaskPrediction(nnx.Module):
    """Features and a prediction for each auxiliary task at one scale (sec. 3.2).

    Two basic blocks on the backbone's map, which is concatenated with the features propagated from the next coarser
    scale if there is one.

    Args:
        in_features: Number of channels of the backbone's map at this scale.
        propagated: Number of channels of the propagated features; 0 at the coarsest scale.
        num_outputs: {auxiliary task: number of logit channels}.
        rngs: Source of the initial weights.
    """

    def __init__(self, in_features: int, propagated: int, num_outputs: Mapping[str, int], *, rngs: nnx.Rngs):
        self.tasks = tuple(num_outputs)

        def refinement() -> Sequential:
            first = BasicBlock(in_features + propagated, in_features, rngs=rngs)
            return Sequential([first, BasicBlock(in_features, in_features, rngs=rngs)])

        self.refinement = nnx.Dict({task: refinement() for task in self.tasks})
        self.decoders = nnx.Dict({t: Conv(in_features, n, 1, use_bias=True, rngs=rngs) for t, n in num_outputs.items()})

    @recomputable
    def __call__(
        self, x: jax.Array, propagated: Mapping[str, jax.Array] | None
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """`[B, H, W, C]`, {task: `[B, H/2, W/2, C']`} -> ({task: `[B, H, W, C]`}, {task: `[B, H, W, num_outputs]`})"""
        features = {}
        for task in self.tasks:
            inputs = x if propagated is None else jnp.concatenate([x, resize_like(propagated[task], x)], axis=-1)
            features[task] = self.refinement[task](inputs)
        return features, {task: self.decoders[task](features[task]) for task in self.tasks}


class FeaturePropagation(nnx.Module):
    """Propagates the features of all tasks from one scale to the next finer one (sec. 3.3).

    The concatenated features of the tasks are weighted by a softmax and reduced to a shared map. Each task adds the
    part of the shared map that its squeeze-and-excitation selects. The softmax runs over groups of N *adjacent*
    channels of the task-major concatenation, not across the N tasks: the published numbers come from that.

    Args:
        tasks: Auxiliary tasks in task order.
        features: Number of channels of each task's features.
        rngs: Source of the initial weights.
    """

    def __init__(self, tasks: Sequence[str], features: int, *, rngs: nnx.Rngs):
        self.tasks = tuple(tasks)
        total = len(self.tasks) * features
        hidden = total // 4
        self.non_linear = Sequential(
            [
                BasicBlock(total, hidden, rngs=rngs),
                BasicBlock(hidden, hidden, rngs=rngs),
                Conv(hidden, total, 1, use_bias=True, rngs=rngs),
            ]
        )
        self.dimensionality_reduction = BasicBlock(total, features, rngs=rngs)
        self.se = nnx.Dict({task: SqueezeExcite(features, rngs=rngs) for task in self.tasks})

    @recomputable
    def __call__(self, x: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """{task: `[B, H, W, C]`} -> {task: `[B, H, W, C]`}"""
        concatenated = jnp.concatenate([x[task] for task in self.tasks], axis=-1)
        scores = self.non_linear(concatenated)
        groups = scores.reshape(*scores.shape[:-1], -1, len(self.tasks))
        attention = nnx.softmax(groups, axis=-1).reshape(scores.shape)
        shared = self.dimensionality_reduction(concatenated * attention)
        return {task: self.se[task](shared) + x[task] for task in self.tasks}


class MTINet(MultiTaskModel):
    """Multi-scale task interaction network (fig. 3).

    From the coarsest scale to the finest, every auxiliary task has an initial prediction, which uses the features
    propagated from the scale before. At every scale the main tasks distil the features of the other tasks. A head per
    main task reads the distilled features of all scales.

    Args:
        backbone: Network from images to feature maps, finest first, one for each scale.
        num_outputs: {auxiliary task: number of logit channels} in task order, the main tasks among them.
        heads: {main task: head over the maps of all scales} in task order.
        rngs: Source of the initial weights.

    Raises:
        ValueError: A main task is not among the auxiliary ones.
    """

    # Scale 0 is the finest.
    initial_prediction = Numbered("scale_{}")
    distillation = Numbered("distillation_scale_{}")
    propagation = Numbered("fpm_scale_{}")

    def __init__(
        self, backbone: Backbone, num_outputs: Mapping[str, int], heads: Mapping[str, nnx.Module], *, rngs: nnx.Rngs
    ):
        self.tasks = tuple(heads)
        self.num_scales = len(backbone.channels)
        self.stages = (*(f"scale_{scale}" for scale in range(self.num_scales)), "heads")
        self.backbone = backbone
        aux_tasks = tuple(num_outputs)
        coarser = (*backbone.channels[1:], 0)
        for scale, width in enumerate(backbone.channels):
            self.initial_prediction[scale] = InitialTaskPrediction(width, coarser[scale], num_outputs, rngs=rngs)
            self.distillation[scale] = TaskDistillation(self.tasks, aux_tasks, width, rngs=rngs)
            if scale > 0:
                self.propagation[scale] = FeaturePropagation(aux_tasks, width, rngs=rngs)
        self.heads = nnx.Dict(heads)

    def parts(self, stage: str) -> Iterable[nnx.Module]:
        if stage == "heads":
            return self.heads.values()
        scale = self.stages.index(stage)
        propagation = [self.propagation[scale]] if scale > 0 else []
        return [self.initial_prediction[scale], self.distillation[scale], *propagation]

    def __call__(self, images: jax.Array) -> Outputs:
        """`[B, H, W, 3]` normalised images -> logits of the main tasks, and the intermediate predictions "scale_<k>" of
        the auxiliary tasks, `[B, H / 2^(k+2), W / 2^(k+2), channels]`.
        """
        maps = self.backbone(images)
        propagated = None
        initial, distilled = {}, {}
        for scale in reversed(range(self.num_scales)):
            features, initial[f"scale_{scale}"] = self.initial_prediction[scale](maps[scale], propagated)
            distilled[scale] = self.distillation[scale](features)
            if scale > 0:
                propagated = self.propagation[scale](features)
        logits = {}
        for task in self.tasks:
            logits[task] = self.heads[task]([distilled[scale][task] for scale in range(self.num_scales)])
        return Outputs({task: resize_like(x, images) for task, x in logits.items()}, initial)


@register("mti_net")
def build_mti_net(parts: ModelParts, options: NoOptions) -> MTINet:
    """Builds an MTI-Net.

    Raises:
        ValueError: The configuration asks for DeepLab heads on a backbone with several maps, or for heads that read
            tokens.
    """
    parts.refuse_heads_of_tokens()
    backbone = parts.backbone()
    if "deeplab" in map(parts.head, parts.tasks) and len(backbone.channels) > 1:
        raise ValueError(
            "model mti_net distils at every scale, and the head 'deeplab' would read the coarsest alone; leave "
            "model.head empty"
        )
    return MTINet(backbone, parts.num_aux_outputs, parts.heads(backbone), rngs=parts.rngs)
