"""Config -> model."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from mtl_jax import backbones, tasks
from mtl_jax.config import Config, aux_tasks, main_tasks
from mtl_jax.heads import HRNetHead
from mtl_jax.models.base import MultiTaskModel
from mtl_jax.models.mtinet import MTINet
from mtl_jax.models.multi_task import Baseline, SingleTask


def _heads(config: Config, channels, dtype: Dtype | None, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
    outputs = tasks.num_channels(main_tasks(config), config.data.dataset)
    return {task: HRNetHead(channels, n, dtype=dtype, rngs=rngs) for task, n in outputs.items()}


def _refuse_aux_tasks(config: Config) -> None:
    if extra := set(aux_tasks(config)) - set(main_tasks(config)):
        raise ValueError(
            f"model {config.model.name} has no intermediate predictions for the auxiliary tasks "
            f"{', '.join(sorted(extra))}; leave data.aux_tasks empty or make them main tasks"
        )


def _single_task(config: Config, dtype: Dtype | None, rngs: nnx.Rngs) -> MultiTaskModel:
    _refuse_aux_tasks(config)
    names = main_tasks(config)
    if len(names) != 1:
        raise ValueError(f"model single_task takes one task, data.tasks names {len(names)}: {', '.join(names)}")
    backbone = backbones.build(config.model.backbone, dtype=dtype, rngs=rngs)
    return SingleTask(backbone, _heads(config, backbone.channels, dtype, rngs)[names[0]], names[0])


def _baseline(config: Config, dtype: Dtype | None, rngs: nnx.Rngs) -> MultiTaskModel:
    _refuse_aux_tasks(config)
    backbone = backbones.build(config.model.backbone, dtype=dtype, rngs=rngs)
    return Baseline(backbone, _heads(config, backbone.channels, dtype, rngs))


def _mti_net(config: Config, dtype: Dtype | None, rngs: nnx.Rngs) -> MultiTaskModel:
    backbone = backbones.build(config.model.backbone, dtype=dtype, rngs=rngs)
    outputs = tasks.num_channels(aux_tasks(config), config.data.dataset)
    return MTINet(backbone, outputs, _heads(config, backbone.channels, dtype, rngs), dtype=dtype, rngs=rngs)


MODELS: dict[str, Callable[[Config, Dtype | None, nnx.Rngs], MultiTaskModel]] = {
    "single_task": _single_task,
    "baseline": _baseline,
    "mti_net": _mti_net,
}


def build(config: Config, *, rngs: nnx.Rngs | None = None) -> MultiTaskModel:
    """The model of a configuration with freshly initialised weights.

    `model(images)` takes float32 `[B, H, W, 3]` normalised images and returns a dict of NHWC arrays: task -> logits at
    the input's size; MTI-Net adds "deep_supervision" -> "scale_<k>" -> task.

    Args:
        rngs: source of the initial weights; by default seeded with `train.seed`.

    Raises:
        ValueError: unknown model or backbone, or tasks that the model or the data set cannot serve.
    """
    if config.model.name not in MODELS:
        raise ValueError(f"unknown model {config.model.name!r}; the models are {', '.join(MODELS)}")
    # None: float32 parameters compute in float32, and a state cast to float64 in float64.
    dtype = None if config.model.dtype == "float32" else jnp.dtype(config.model.dtype)
    return MODELS[config.model.name](config, dtype, nnx.Rngs(config.train.seed) if rngs is None else rngs)
