"""Models from configurations."""

import jax.numpy as jnp
from flax import nnx

from mtl_jax import nn
from mtl_jax.config import Config, aux_tasks, main_tasks, num_channels
from mtl_jax.models.base import MultiTaskModel
from mtl_jax.models.registry import MODELS, ModelParts, options


def build(config: Config, *, rngs: nnx.Rngs | None = None, image_size: tuple[int, int] | None = None) -> MultiTaskModel:
    """Builds the model of a configuration with random initial weights.

    `model(images)` takes float32 `[B, H, W, 3]` normalised images and returns `Outputs`.

    Args:
        config: The configuration, of which the model reads `data`, `model` and `train.seed`.
        rngs: Source of the initial weights; by default one seeded with `train.seed`.
        image_size: (height, width) of the network's inputs in pixels, for backbones that depend on it; by default
            `data.image_size`, and unknown where that is (0, 0). `experiment.build_model` hands over the size of the
            data set.

    Raises:
        ValueError: Unknown model, option, backbone, head or stage, or tasks that the model or the data set cannot
            serve.
    """
    method, model_options = MODELS[config.model.name], options(config)
    height, width = config.data.image_size
    parts = ModelParts(
        name=config.model.name,
        num_outputs=num_channels(config, main_tasks(config)),
        num_aux_outputs=num_channels(config, aux_tasks(config)),
        backbone_name=config.model.backbone,
        head_name=config.model.head,
        image_size=image_size or ((height, width) if (height, width) != (0, 0) else None),
        rngs=nnx.Rngs(config.train.seed) if rngs is None else rngs,
    )
    # None: float32 parameters compute in float32, and a state cast to float64 computes in float64.
    dtype = None if config.model.dtype == "float32" else jnp.dtype(config.model.dtype)
    with nn.compute_dtype(dtype):
        model = method.build(parts, model_options)
    nn.remat.select(model, tuple(config.model.remat))
    return model
