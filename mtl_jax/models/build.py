"""Config -> model."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from mtl_jax import backbones, heads
from mtl_jax.backbones import Backbone, ResNet
from mtl_jax.config import Config, aux_tasks, main_tasks, num_channels
from mtl_jax.models.base import MultiTaskModel
from mtl_jax.models.cross_stitch import CrossStitch
from mtl_jax.models.mtan import MTAN
from mtl_jax.models.mtinet import MTINet
from mtl_jax.models.multi_task import Baseline, SingleTask
from mtl_jax.models.nddr_cnn import NDDRCNN
from mtl_jax.models.padnet import PADNet
from mtl_jax.nn import remat


class _Parts:
    """Makes what models are made of, from a configuration."""

    def __init__(self, config: Config, dtype: Dtype | None, rngs: nnx.Rngs):
        self.config = config
        self.options: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.tasks = main_tasks(config)

    def backbone(self) -> Backbone:
        return backbones.build(self.config.model.backbone, **self.options)

    def heads(self, backbone: Backbone) -> dict[str, nnx.Module]:
        outputs = num_channels(self.config, self.tasks)
        name = self.config.model.head
        return {task: heads.build(name, backbone.channels, n, **self.options) for task, n in outputs.items()}

    def intermediate_outputs(self) -> dict[str, int]:
        """{auxiliary task: logit channels}"""
        return num_channels(self.config, aux_tasks(self.config))

    def refuse_aux_tasks(self) -> None:
        if extra := set(aux_tasks(self.config)) - set(self.tasks):
            raise ValueError(
                f"model {self.config.model.name} has no intermediate predictions for the auxiliary tasks "
                f"{', '.join(sorted(extra))}; leave data.aux_tasks empty or make them main tasks"
            )


def _single_task(parts: _Parts) -> MultiTaskModel:
    parts.refuse_aux_tasks()
    if len(parts.tasks) != 1:
        named = ", ".join(parts.tasks)
        raise ValueError(f"model single_task takes one task, data.tasks names {len(parts.tasks)}: {named}")
    backbone = parts.backbone()
    ((task, head),) = parts.heads(backbone).items()
    return SingleTask(backbone, head, task)


def _baseline(parts: _Parts) -> MultiTaskModel:
    parts.refuse_aux_tasks()
    backbone = parts.backbone()
    return Baseline(backbone, parts.heads(backbone))


def _columns(parts: _Parts) -> tuple[dict[str, Backbone], dict[str, nnx.Module]]:
    """A backbone and a head for each task."""
    parts.refuse_aux_tasks()
    columns = {task: parts.backbone() for task in parts.tasks}
    return columns, parts.heads(columns[parts.tasks[0]])


def _cross_stitch(parts: _Parts) -> MultiTaskModel:
    model = parts.config.model
    return CrossStitch(*_columns(parts), alpha=model.alpha, beta=model.beta)


def _nddr_cnn(parts: _Parts) -> MultiTaskModel:
    model = parts.config.model
    return NDDRCNN(*_columns(parts), alpha=model.alpha, beta=model.beta, **parts.options)


def _mtan(parts: _Parts) -> MultiTaskModel:
    parts.refuse_aux_tasks()
    backbone = parts.backbone()
    if not isinstance(backbone, ResNet):
        known = ", ".join(name for name, kind in backbones.BACKBONES.items() if kind is ResNet)
        raise ValueError(
            f"model mtan attends inside the layers of a ResNet; model.backbone is {parts.config.model.backbone!r}, "
            f"it may be {known}"
        )
    return MTAN(backbone, parts.heads(backbone), **parts.options)


def _pad_net(parts: _Parts) -> MultiTaskModel:
    if parts.config.model.head:
        raise ValueError(f"model pad_net has its own heads; model.head is {parts.config.model.head!r}, leave it empty")
    return PADNet(parts.backbone(), parts.intermediate_outputs(), parts.tasks, **parts.options)


def _mti_net(parts: _Parts) -> MultiTaskModel:
    backbone = parts.backbone()
    if parts.config.model.head == "deeplab" and len(backbone.channels) > 1:
        raise ValueError(
            "model mti_net distils at every scale, and model.head='deeplab' would read the coarsest alone; leave it "
            "empty"
        )
    return MTINet(backbone, parts.intermediate_outputs(), parts.heads(backbone), **parts.options)


MODELS: dict[str, Callable[[_Parts], MultiTaskModel]] = {
    "single_task": _single_task,
    "baseline": _baseline,
    "cross_stitch": _cross_stitch,
    "nddr_cnn": _nddr_cnn,
    "mtan": _mtan,
    "pad_net": _pad_net,
    "mti_net": _mti_net,
}
# Submodules through which the tasks' networks exchange features.
FUSIONS = (CrossStitch.fusion, NDDRCNN.fusion)


def build(config: Config, *, rngs: nnx.Rngs | None = None) -> MultiTaskModel:
    """The model of a configuration with freshly initialised weights.

    `model(images)` takes float32 `[B, H, W, 3]` normalised images and returns a dict of NHWC arrays: task -> logits at
    the input's size; PAD-Net adds "initial_<task>", MTI-Net "deep_supervision" -> "scale_<k>" -> task.

    Args:
        rngs: source of the initial weights; by default seeded with `train.seed`.

    Raises:
        ValueError: unknown model, backbone, head or stage, or tasks that the model or the data set cannot serve.
    """
    if config.model.name not in MODELS:
        raise ValueError(f"unknown model {config.model.name!r}; the models are {', '.join(MODELS)}")
    # None: float32 parameters compute in float32, and a state cast to float64 in float64.
    dtype = None if config.model.dtype == "float32" else jnp.dtype(config.model.dtype)
    rngs = nnx.Rngs(config.train.seed) if rngs is None else rngs
    model = MODELS[config.model.name](_Parts(config, dtype, rngs))
    remat.select(model, tuple(config.model.remat))
    return model
