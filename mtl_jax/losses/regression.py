"""Losses of continuous labels."""

import jax
import jax.numpy as jnp

from mtl_jax.losses.masked import LabelCounts, masked_mean
from mtl_jax.tasks import IGNORE


def depth_l1(prediction: jax.Array, label: jax.Array, *, counts: LabelCounts | None = None) -> jax.Array:
    """Computes the mean absolute difference in metres over the valid pixels.

    Args:
        prediction: Depth `[B, H, W, 1]` in metres.
        label: Depth `[B, H, W, 1]` in metres. Pixels of 255 are ignored.
        counts: Counts of the whole batch, if these images are a part of it.
    """
    return masked_mean(jnp.abs(prediction - label), label != IGNORE, counts)


def normals_l1(prediction: jax.Array, label: jax.Array, *, counts: LabelCounts | None = None) -> jax.Array:
    """Computes the mean absolute difference to the normalised prediction over the valid elements (three per pixel).

    Args:
        prediction: Vectors `[B, H, W, 3]` of any length. Each is divided by (its norm + 1e-12).
        label: Unit vectors `[B, H, W, 3]`. Elements of 255 are ignored.
        counts: Counts of the whole batch, if these images are a part of it.
    """
    squared = jnp.square(prediction).sum(-1, keepdims=True)
    # The square root has no derivative at 0. The gradient of the norm is set to 0 there, as in torch.
    nonzero = squared > 0
    norm = jnp.where(nonzero, jnp.sqrt(jnp.where(nonzero, squared, 1)), 0)
    return masked_mean(jnp.abs(prediction / (norm + 1e-12) - label), label != IGNORE, counts)
