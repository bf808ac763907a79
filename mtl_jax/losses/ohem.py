"""Online hard example mining: the cross-entropy of the pixels that are hardest to predict."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mtl_jax.labels import ClassIds
from mtl_jax.losses.cross_entropy import class_ids, of_label
from mtl_jax.losses.masked import LabelCounts, as_class_weights, labelled_images, mean_over_images, pixel_weights
from mtl_jax.losses.registry import register
from mtl_jax.tasks import IGNORE


@register(
    "ohem_cross_entropy",
    kinds=(ClassIds,),
    short="ohem",
    bounds={"thresh": (0, 1), "min_kept": (0, math.inf), "class_weights": (0, math.inf)},
)
def ohem_cross_entropy(
    logits: jax.Array,
    label: jax.Array,
    thresh: float | None = 0.7,
    min_kept: int = 100_000,
    class_weights: Sequence[float] | None = None,
    *,
    counts: LabelCounts | None = None,
) -> jax.Array:
    """Computes the cross-entropy of the hard pixels: its mean in each image, and the mean over the labelled images.

    A valid pixel is hard if the probability of its class is below `thresh`, or below that of all but the `min_kept`
    hardest pixels of the image. Names and defaults are those of mmsegmentation's OHEMPixelSampler, which takes
    the hardest of the whole batch, and divides by the number of all pixels. The method is that of arXiv 1604.03540.

    Args:
        logits: Logits `[B, H, W, C]`.
        label: Class ids `[B, H, W, 1]`. Pixels of 255 are ignored, and fractions are cut off.
        thresh: Probability below which a pixel is hard. None means that only the `min_kept` hardest are.
        min_kept: Least number of pixels of an image that are kept.
        class_weights: Weight of each class. None means 1.
        counts: Counts of the whole batch, if these images are a part of it.

    Raises:
        ValueError: There is another number of weights than classes.
    """
    ids, weights = class_ids(label), as_class_weights(class_weights, logits)
    valid = ids != IGNORE
    log_probability = of_label(jax.nn.log_softmax(logits, axis=-1), ids)
    hard = _hard(jax.lax.stop_gradient(jnp.exp(log_probability)), valid, thresh, min_kept)
    own = jnp.ones_like(log_probability) if weights is None else pixel_weights(ids, weights)
    kept = jnp.where(hard, own, 0)
    total = kept.sum((1, 2))
    losses = jnp.where(hard, -own * log_probability, 0).sum((1, 2)) / jnp.where(total > 0, total, 1)
    return mean_over_images(losses, labelled_images(valid), counts)


def _hard(probability: jax.Array, valid: jax.Array, thresh: float | None, min_kept: int) -> jax.Array:
    """Returns which pixels are kept, bool `[B, H, W]`.

    Args:
        probability: Probability of each pixel's class, `[B, H, W]`.
        valid: Pixels with a label, `[B, H, W]`.
        thresh: Probability below which a pixel is kept in any case.
        min_kept: Least number of pixels of an image that are kept.
    """
    easiest = 2.0  # above every probability
    last = jnp.full((len(probability), 1, 1), easiest, probability.dtype)  # the last of the hardest pixels
    if min_kept < math.prod(probability.shape[1:]):
        ordered = jnp.sort(jnp.where(valid, probability, easiest).reshape(len(probability), -1), axis=-1)
        last = ordered[:, min_kept - 1].reshape(-1, 1, 1) if min_kept else jnp.full_like(last, -1.0)
    hard = probability <= last
    return valid & (hard if thresh is None else hard | (probability < thresh))
