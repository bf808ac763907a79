"""Single-task networks and the multi-task baseline (arXiv 2004.13379, sec. 2.1)."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
from flax import nnx

from mtl_jax.backbones import Backbone
from mtl_jax.models.base import MultiTaskModel
from mtl_jax.models.registry import ModelParts, NoOptions, register
from mtl_jax.nn import resize_like
from mtl_jax.outputs import Outputs


class SingleTask(MultiTaskModel):
    """A network for one task.

    Args:
        backbone: Network from images to feature maps.
        decoder: Head over the backbone's maps.
        task: Name of the task.
    """

    specific: tuple[str, ...] = ("decoder",)

    def __init__(self, backbone: Backbone, decoder: nnx.Module, task: str):
        self.backbone = backbone
        self.decoder: Any = decoder
        self.task = task

    def parts(self, stage: str) -> Iterable[nnx.Module]:
        return (self.decoder,)

    def __call__(self, images: jax.Array) -> Outputs:
        logits = self.decoder(self.backbone(images))
        return Outputs({self.task: resize_like(logits, images)})


class Baseline(MultiTaskModel):
    """A backbone shared by all tasks, and a head for each task.

    Args:
        backbone: Network from images to feature maps.
        decoders: {task: head over the backbone's maps}.
    """

    specific: tuple[str, ...] = ("decoders",)

    def __init__(self, backbone: Backbone, decoders: Mapping[str, nnx.Module]):
        self.tasks = tuple(decoders)
        self.backbone = backbone
        self.decoders = nnx.Dict(decoders)

    def parts(self, stage: str) -> Iterable[nnx.Module]:
        return self.decoders.values()

    def encode(self, images: jax.Array) -> Any:
        """Returns the shared representation: the maps of the backbone."""
        return self.backbone(images)

    def decode(self, features: Any, images: jax.Array) -> Outputs:
        """Returns the predictions of the heads from the shared representation, at the size of the images."""
        logits = {task: self.decoders[task](features) for task in self.tasks}
        return Outputs({task: resize_like(x, images) for task, x in logits.items()})

    def __call__(self, images: jax.Array) -> Outputs:
        return self.decode(self.encode(images), images)


@register("single_task")
def build_single_task(parts: ModelParts, options: NoOptions) -> SingleTask:
    """Builds a single-task network.

    Raises:
        ValueError: The configuration names several tasks.
    """
    parts.refuse_aux_tasks()
    if len(parts.tasks) != 1:
        named = ", ".join(parts.tasks)
        raise ValueError(f"model single_task takes one task, data.tasks names {len(parts.tasks)}: {named}")
    backbone = parts.backbone()
    ((task, head),) = parts.heads(backbone).items()
    return SingleTask(backbone, head, task)


@register("baseline")
def build_baseline(parts: ModelParts, options: NoOptions) -> Baseline:
    """Builds the multi-task baseline."""
    parts.refuse_aux_tasks()
    backbone = parts.backbone()
    return Baseline(backbone, parts.heads(backbone))
