"""Classification losses."""

import jax
import jax.numpy as jnp

from mtl_jax.losses.masked import masked_mean
from mtl_jax.tasks import IGNORE


def softmax_cross_entropy(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Mean of -log softmax(logits)[label] over the pixels of the batch that are not ignored.

    Args:
        logits: `[B, H, W, C]`.
        label: `[B, H, W, 1]` class ids; 255 is ignored, fractions are cut off.
    """
    ids = label[..., 0].astype(jnp.int32)
    valid = ids != IGNORE
    log_probabilities = jax.nn.log_softmax(logits, axis=-1)
    picked = jnp.take_along_axis(log_probabilities, jnp.where(valid, ids, 0)[..., None], axis=-1)[..., 0]
    return masked_mean(-picked, valid)


def balanced_cross_entropy(logits: jax.Array, label: jax.Array, positive_weight: float | None = None) -> jax.Array:
    """Sigmoid cross-entropy, weight w on positives and 1 - w on negatives, divided by the number of valid elements.

    The loss of HED (arXiv 1504.06375, eq. 2), in the form of arXiv 1904.08918, which ignores nothing.

    Args:
        logits: `[B, H, W, C]`.
        label: `[B, H, W, C]`; positive where >= 0.5; elements of 255 are ignored.
        positive_weight: w; by default the fraction of negatives among the valid elements of the batch.
    """
    valid = label != IGNORE
    positive = label >= 0.5
    if positive_weight is None:
        weight = 1 - _mean(positive.astype(logits.dtype), valid)
    else:
        weight = jnp.asarray(positive_weight, logits.dtype)
    values = jnp.where(positive, weight * jax.nn.softplus(-logits), (1 - weight) * jax.nn.softplus(logits))
    return _mean(values, valid)


def _mean(values: jax.Array, valid: jax.Array) -> jax.Array:
    """`masked_mean` to the last bit like `values.mean()` where all is valid.

    XLA divides by a constant, there the number of elements, by multiplying with its reciprocal.
    """
    count = jnp.maximum(valid.sum(), 1).astype(values.dtype)
    return jnp.where(valid, values, 0).sum() * (1 / count)
