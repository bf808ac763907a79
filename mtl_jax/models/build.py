"""Models from configurations."""

import jax.numpy as jnp
from flax import nnx

from mtl_jax import nn
from mtl_jax.config import Config, aux_tasks, image_size, main_tasks, num_channels
from mtl_jax.models.base import MultiTaskModel
from mtl_jax.models.registry import MODELS, ModelParts, options


def build(config: Config, *, rngs: nnx.Rngs | None = None) -> MultiTaskModel:
    """Builds the model of a configuration with random initial weights.

    `model(images)` takes float32 `[B, H, W, 3]` normalised images and returns `Outputs`.

    Args:
        config: The configuration, of which the model reads `data`, `model` and `train.seed`.
        rngs: Source of the initial weights; by default one seeded with `train.seed`.

    Raises:
        ValueError: Unknown model, option, backbone, head or stage, or tasks that the model or the data set cannot
            serve.
    """
    method, model_options = MODELS[config.model.name], options(config)
    size = image_size(config)
    parts = ModelParts(
        name=config.model.name,
        num_outputs=num_channels(config, main_tasks(config)),
        num_aux_outputs=num_channels(config, aux_tasks(config)),
        backbone_name=config.model.backbone,
        head_name=config.model.head,
        image_size=size if size != (0, 0) else None,
        rngs=nn.InitialKeys(config.train.seed) if rngs is None else rngs,
        task_heads=config.model.heads,
        regressions=config.model.regression,
    )
    # None: float32 parameters compute in float32, and a state cast to float64 computes in float64.
    dtype = None if config.model.dtype == "float32" else jnp.dtype(config.model.dtype)
    with nn.compute_dtype(dtype):
        model = method.build(parts, model_options)
    nn.remat.select(model, tuple(config.model.remat))
    return model
