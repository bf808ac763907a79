"""What training, evaluation and weight files expect of a model."""

from typing import Any

import jax
from flax import nnx

from mtl_jax.backbones.base import Backbone


class MultiTaskModel(nnx.Module):
    """`[B, H, W, 3]` normalised images to {task: logits `[B, H, W, channels]`}, and more where a method has more.

    Attributes:
        backbone: what pretrained weights are for.
    """

    backbone: Backbone

    def __call__(self, images: jax.Array) -> dict[str, Any]:
        raise TypeError(f"{type(self).__name__} does not define __call__")
