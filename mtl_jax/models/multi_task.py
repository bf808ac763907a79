"""Single-task networks and the multi-task baseline (arXiv 2004.13379, sec. 2.1)."""

from collections.abc import Mapping
from operator import call
from typing import Any

import jax
from flax import nnx

from mtl_jax.backbones import Backbone
from mtl_jax.models.base import MultiTaskModel
from mtl_jax.nn import resize_like


class SingleTask(MultiTaskModel):
    """One backbone, one head: `[B, H, W, 3] -> {task: [B, H, W, channels]}`."""

    specific: tuple[str, ...] = ("decoder",)

    def __init__(self, backbone: Backbone, decoder: nnx.Module, task: str):
        self.backbone = backbone
        self.decoder = decoder
        self.task = task

    def __call__(self, images: jax.Array) -> dict[str, jax.Array]:
        logits = self.run("heads", call, self.decoder, self.backbone(images))
        return {self.task: resize_like(logits, images)}


class Baseline(MultiTaskModel):
    """A backbone shared by all tasks and one head for each: `[B, H, W, 3] -> {task: [B, H, W, channels]}`."""

    specific: tuple[str, ...] = ("decoders",)

    def __init__(self, backbone: Backbone, decoders: Mapping[str, nnx.Module]):
        self.tasks = tuple(decoders)
        self.backbone = backbone
        self.decoders = nnx.Dict(decoders)

    def encode(self, images: jax.Array) -> Any:
        """The shared representation: the backbone's map or maps."""
        return self.backbone(images)

    def decode(self, features: Any, images: jax.Array) -> dict[str, jax.Array]:
        """What the heads make of it, at the images' size."""
        logits = {task: self.run("heads", call, self.decoders[task], features) for task in self.tasks}
        return {task: resize_like(x, images) for task, x in logits.items()}

    def __call__(self, images: jax.Array) -> dict[str, jax.Array]:
        return self.decode(self.encode(images), images)
