"""Cross-entropies of class ids, and of foreground and background."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mtl_jax.labels import ClassIds, Foreground
from mtl_jax.losses.masked import LabelCounts, as_class_weights, count, mean_by_class_weights, pixel_weights
from mtl_jax.losses.registry import register
from mtl_jax.tasks import IGNORE


@register(
    "softmax_cross_entropy",
    kinds=(ClassIds,),
    short="ce",
    bounds={"smoothing": (0, 1), "class_weights": (0, math.inf)},
)
def softmax_cross_entropy(
    logits: jax.Array,
    label: jax.Array,
    smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
    *,
    counts: LabelCounts | None = None,
) -> jax.Array:
    """Computes the mean of -log softmax(logits)[label] over the pixels of the batch that are not ignored.

    With smoothing s and class weights w a pixel of class y has (1 - s) w_y (-log p_y) + s/C sum_c w_c (-log p_c), and
    the sum over the pixels is divided by the sum of their w_y, as in `torch.nn.CrossEntropyLoss`.

    Args:
        logits: Logits `[B, H, W, C]`.
        label: Class ids `[B, H, W, 1]`. Pixels of 255 are ignored, and fractions are cut off.
        smoothing: Label smoothing (arXiv 1512.00567, sec. 7).
        class_weights: Weight of each class. None means 1.
        counts: Counts of the whole batch, if these images are a part of it.

    Raises:
        ValueError: There is another number of weights than classes.
    """
    ids, weights = class_ids(label), as_class_weights(class_weights, logits)
    log_probabilities = jax.nn.log_softmax(logits, axis=-1)
    values = -of_label(log_probabilities, ids)
    if weights is not None:
        values = pixel_weights(ids, weights) * values
    if smoothing:
        every_class = -log_probabilities if weights is None else -log_probabilities * weights.reshape(1, 1, 1, -1)
        values = (1 - smoothing) * values + smoothing * every_class.mean(-1)
    return mean_by_class_weights(values, ids, weights, counts)


@register("balanced_cross_entropy", kinds=(Foreground,), short="bce", bounds={"positive_weight": (0, 1)})
def balanced_cross_entropy(
    logits: jax.Array,
    label: jax.Array,
    positive_weight: float | None = None,
    soft: bool = False,
    *,
    counts: LabelCounts | None = None,
) -> jax.Array:
    """Computes the mean sigmoid cross-entropy of the valid elements, weighted w for positives and 1 - w for negatives.

    This is the loss of HED (arXiv 1504.06375, eq. 2) in the form of arXiv 1904.08918, which ignores no elements.

    Args:
        logits: Logits `[B, H, W, C]`.
        label: Label `[B, H, W, C]`. Elements >= 0.5 are positive, and elements of 255 are ignored.
        positive_weight: Weight w. None means the fraction of negatives among the valid elements of the batch.
        soft: True if a label between 0 and 1 counts as that share of a positive, and the rest of it as a negative.
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
    if soft:
        values = label * positive + (1 - label) * negative
    else:
        values = jnp.where(label >= 0.5, positive, negative)
    return jnp.where(label != IGNORE, values, 0).sum() * reciprocal


@register("edge_cross_entropy", kinds=(Foreground,))
def edge_cross_entropy(logits: jax.Array, label: jax.Array, *, counts: LabelCounts | None = None) -> jax.Array:
    """Computes the `balanced_cross_entropy` with the positive weight 0.95, the published loss of edges.

    Args:
        logits: Logits `[B, H, W, C]`.
        label: Label `[B, H, W, C]`. Elements >= 0.5 are positive, and elements of 255 are ignored.
        counts: Counts of the whole batch, if these images are a part of it.
    """
    return balanced_cross_entropy(logits, label, 0.95, counts=counts)


def class_ids(label: jax.Array) -> jax.Array:
    """Returns the class ids of a label `[B, H, W, 1]`, int32 `[B, H, W]`, fractions cut off."""
    return label[..., 0].astype(jnp.int32)


def of_label(values: jax.Array, ids: jax.Array) -> jax.Array:
    """Returns the value of each pixel's own class, `[B, H, W]`; where the pixel is ignored, that of class 0.

    Args:
        values: Value of every class, `[B, H, W, C]`.
        ids: Class ids `[B, H, W]`.
    """
    return jnp.take_along_axis(values, jnp.where(ids == IGNORE, 0, ids)[..., None], axis=-1)[..., 0]
