"""Classification losses."""

import jax
import jax.numpy as jnp

from mtl_jax.losses.masked import LabelCounts, count, masked_mean
from mtl_jax.tasks import IGNORE


def softmax_cross_entropy(logits: jax.Array, label: jax.Array, *, counts: LabelCounts | None = None) -> jax.Array:
    """Mean of -log softmax(logits)[label] over the pixels of the batch that are not ignored.

    Args:
        logits: `[B, H, W, C]`.
        label: `[B, H, W, 1]` class ids; 255 is ignored, fractions are cut off.
        counts: of the batch that these images are a part of.
    """
    ids = label[..., 0].astype(jnp.int32)
    valid = ids != IGNORE
    log_probabilities = jax.nn.log_softmax(logits, axis=-1)
    picked = jnp.take_along_axis(log_probabilities, jnp.where(valid, ids, 0)[..., None], axis=-1)[..., 0]
    return masked_mean(-picked, valid, counts)


def balanced_cross_entropy(
    logits: jax.Array, label: jax.Array, positive_weight: float | None = None, *, counts: LabelCounts | None = None
) -> jax.Array:
    """Sigmoid cross-entropy, weight w on positives and 1 - w on negatives, divided by the number of valid elements.

    The loss of HED (arXiv 1504.06375, eq. 2), in the form of arXiv 1904.08918, which ignores nothing.

    Args:
        logits: `[B, H, W, C]`.
        label: `[B, H, W, C]`; positive where >= 0.5; elements of 255 are ignored.
        positive_weight: w; by default the fraction of negatives among the valid elements of the batch.
        counts: of the batch that these images are a part of.
    """
    counts = count(label) if counts is None else counts
    # As XLA computes `values.mean()`, where all is valid, to the last bit: it multiplies with a constant's reciprocal.
    reciprocal = 1 / jnp.maximum(counts.valid, 1).astype(logits.dtype)
    if positive_weight is None:
        weight = 1 - counts.positive.astype(logits.dtype) * reciprocal
    else:
        weight = jnp.asarray(positive_weight, logits.dtype)
    positive, negative = weight * jax.nn.softplus(-logits), (1 - weight) * jax.nn.softplus(logits)
    values = jnp.where(label >= 0.5, positive, negative)
    return jnp.where(label != IGNORE, values, 0).sum() * reciprocal
