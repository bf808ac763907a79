"""The focal loss."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mtl_jax.labels import ClassIds
from mtl_jax.losses.cross_entropy import class_ids, of_label
from mtl_jax.losses.masked import LabelCounts, as_class_weights, mean_by_class_weights, pixel_weights
from mtl_jax.losses.registry import register


@register(
    "softmax_focal", kinds=(ClassIds,), short="focal", bounds={"gamma": (0, math.inf), "class_weights": (0, math.inf)}
)
def softmax_focal(
    logits: jax.Array,
    label: jax.Array,
    gamma: float = 2.0,
    class_weights: Sequence[float] | None = None,
    *,
    counts: LabelCounts | None = None,
) -> jax.Array:
    """Computes the mean of -(1 - p)^gamma log p over the valid pixels, where p is the probability of the pixel's class.

    This is the loss of arXiv 1708.02002, eq. 5, with the softmax in place of the sigmoid. With gamma = 0 it is the
    cross-entropy. Class weights, alpha in the paper, make it a weighted mean as in `softmax_cross_entropy`.

    Args:
        logits: Logits `[B, H, W, C]`.
        label: Class ids `[B, H, W, 1]`. Pixels of 255 are ignored, and fractions are cut off.
        gamma: Exponent; the greater, the less do pixels count that are predicted well.
        class_weights: Weight of each class. None means 1.
        counts: Counts of the whole batch, if these images are a part of it.

    Raises:
        ValueError: There is another number of weights than classes.
    """
    ids, weights = class_ids(label), as_class_weights(class_weights, logits)
    log_probability = of_label(jax.nn.log_softmax(logits, axis=-1), ids)
    # 1 - p without the cancellation of the difference. A power below 1 has no derivative at 0.
    error = jnp.maximum(-jnp.expm1(log_probability), jnp.finfo(logits.dtype).tiny)
    values = -(error**gamma) * log_probability
    if weights is not None:
        values = pixel_weights(ids, weights) * values
    return mean_by_class_weights(values, ids, weights, counts)
