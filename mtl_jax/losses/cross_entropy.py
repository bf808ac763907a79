"""Classification losses."""

import jax
import jax.numpy as jnp

from mtl_jax.losses.masked import LabelCounts, count, masked_mean
from mtl_jax.tasks import IGNORE


def softmax_cross_entropy(logits: jax.Array, label: jax.Array, *, counts: LabelCounts | None = None) -> jax.Array:
    """Computes the mean of -log softmax(logits)[label] over the pixels of the batch that are not ignored.

    Args:
        logits: Logits `[B, H, W, C]`.
        label: Class ids `[B, H, W, 1]`. Pixels of 255 are ignored, and fractions are cut off.
        counts: Counts of the whole batch, if these images are a part of it.
    """
    ids = label[..., 0].astype(jnp.int32)
    valid = ids != IGNORE
    log_probabilities = jax.nn.log_softmax(logits, axis=-1)
    picked = jnp.take_along_axis(log_probabilities, jnp.where(valid, ids, 0)[..., None], axis=-1)[..., 0]
    return masked_mean(-picked, valid, counts)


def balanced_cross_entropy(
    logits: jax.Array, label: jax.Array, positive_weight: float | None = None, *, counts: LabelCounts | None = None
) -> jax.Array:
    """Computes the mean sigmoid cross-entropy of the valid elements, weighted w for positives and 1 - w for negatives.

    This is the loss of HED (arXiv 1504.06375, eq. 2) in the form of arXiv 1904.08918, which ignores no elements.

    Args:
        logits: Logits `[B, H, W, C]`.
        label: Label `[B, H, W, C]`. Elements >= 0.5 are positive, and elements of 255 are ignored.
        positive_weight: Weight w. None means the fraction of negatives among the valid elements of the batch.
        counts: Counts of the whole batch, if these images are a part of it.
    """
    counts = count(label) if counts is None else counts
    # If all elements are valid, the result equals XLA's `values.mean()` to the last bit: XLA multiplies with the
    # reciprocal of a constant.
    reciprocal = 1 / jnp.maximum(counts.valid, 1).astype(logits.dtype)
    if positive_weight is None:
        weight = 1 - counts.positive.astype(logits.dtype) * reciprocal
    else:
        weight = jnp.asarray(positive_weight, logits.dtype)
    positive, negative = weight * jax.nn.softplus(-logits), (1 - weight) * jax.nn.softplus(logits)
    values = jnp.where(label >= 0.5, positive, negative)
    return jnp.where(label != IGNORE, values, 0).sum() * reciprocal
