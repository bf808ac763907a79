"""Losses of continuous labels."""

import jax
import jax.numpy as jnp

from mtl_jax.losses.masked import LabelCounts, masked_mean
from mtl_jax.tasks import IGNORE


def depth_l1(prediction: jax.Array, label: jax.Array, *, counts: LabelCounts | None = None) -> jax.Array:
    """Mean absolute difference in metres over the valid pixels.

    Args:
        prediction: `[B, H, W, 1]` metres.
        label: `[B, H, W, 1]` metres; 255 is ignored.
        counts: of the batch that these images are a part of.
    """
    return masked_mean(jnp.abs(prediction - label), label != IGNORE, counts)


def normals_l1(prediction: jax.Array, label: jax.Array, *, counts: LabelCounts | None = None) -> jax.Array:
    """Mean absolute difference to the normalised prediction, over valid elements (three per pixel).

    Args:
        prediction: `[B, H, W, 3]` of any length; divided by (its norm + 1e-12).
        label: `[B, H, W, 3]` unit vectors; elements of 255 are ignored.
        counts: of the batch that these images are a part of.
    """
    squared = jnp.square(prediction).sum(-1, keepdims=True)
    # The square root has no derivative at 0; the norm's gradient there is 0, as in torch.
    nonzero = squared > 0
    norm = jnp.where(nonzero, jnp.sqrt(jnp.where(nonzero, squared, 1)), 0)
    return masked_mean(jnp.abs(prediction / (norm + 1e-12) - label), label != IGNORE, counts)
