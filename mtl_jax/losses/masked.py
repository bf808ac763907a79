"""Means over the valid elements, or the labelled images, of a batch."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtl_jax.tasks import IGNORE, TASKS


class LabelCounts(NamedTuple):
    """Counts of a label over a whole batch, for a loss that receives the batch in parts.

    With these counts the losses of the parts add up to the loss of the batch.

    Attributes:
        valid: Number of elements of the label that are not ignored.
        positive: Number of valid elements that are at least 0.5.
        images: Number of images with a valid element.
        ids: Number of elements of each value from 0 to 255, fractions cut off, `[256]`. It has a meaning for class ids.
    """

    valid: jax.Array
    positive: jax.Array
    images: jax.Array
    ids: jax.Array


def count(label: jax.Array) -> LabelCounts:
    """Returns the counts of a label `[B, H, W, C]`."""
    valid = label != IGNORE
    return LabelCounts(
        valid=valid.sum(),
        positive=(valid & (label >= 0.5)).sum(),
        images=labelled_images(valid).sum(),
        ids=jnp.bincount(label.astype(jnp.int32).reshape(-1), length=IGNORE + 1),
    )


def count_labels(batch: Mapping[str, jax.Array]) -> dict[str, LabelCounts]:
    """Returns {task: counts of its label} for every task in a batch."""
    return {task: count(batch[task]) for task in TASKS if task in batch}


def labelled_images(valid: jax.Array) -> jax.Array:
    """Returns which images have a valid element, bool `[B]`, of a mask `[B, ...]`."""
    return valid.any(axis=tuple(range(1, valid.ndim)))


def masked_mean(values: jax.Array, valid: jax.Array, counts: LabelCounts | None = None) -> jax.Array:
    """Computes the mean of the valid values, 0 if no value is valid.

    Args:
        values: Values of any shape.
        valid: Mask of the same shape, True for values that count.
        counts: Counts of the whole batch, if the values are a part of it. The sum of the valid values is then divided
            by the number of valid elements of the batch.
    """
    number = valid.sum() if counts is None else counts.valid
    return jnp.where(valid, values, 0).sum() / jnp.maximum(number, 1).astype(values.dtype)


def mean_by_class_weights(
    values: jax.Array, ids: jax.Array, weights: jax.Array | None, counts: LabelCounts | None = None
) -> jax.Array:
    """Computes sum(values) / sum(w) over the valid pixels, where w is the weight of a pixel's class; 0 if sum(w) is 0.

    Args:
        values: Values `[B, H, W]`, which have the weights in them.
        ids: Class ids `[B, H, W]`; 255 is not valid.
        weights: Weight of each class `[C]`. None means 1: the plain mean.
        counts: Counts of the whole batch, if the values are a part of it.
    """
    valid = ids != IGNORE
    if weights is None:
        return masked_mean(values, valid, counts)
    if counts is None:
        total = jnp.where(valid, pixel_weights(ids, weights), 0).sum()
    else:
        total = (weights * counts.ids[: len(weights)].astype(weights.dtype)).sum()
    return jnp.where(valid, values, 0).sum() / jnp.where(total > 0, total, 1)


def pixel_weights(ids: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns the weight of the class of each pixel, `[B, H, W]`; where the pixel is ignored, that of class 0."""
    return weights[jnp.where(ids == IGNORE, 0, ids)]


def as_class_weights(class_weights: Sequence[float] | None, logits: jax.Array) -> jax.Array | None:
    """Returns the weights of the classes as an array `[C]` for logits `[B, H, W, C]`, None for None.

    Raises:
        ValueError: There is another number of weights than classes.
    """
    if class_weights is None:
        return None
    if len(class_weights) != logits.shape[-1]:
        raise ValueError(f"class_weights has {len(class_weights)} values; there are {logits.shape[-1]} classes")
    return jnp.asarray(class_weights, logits.dtype)


def mean_over_images(values: jax.Array, labelled: jax.Array, counts: LabelCounts | None = None) -> jax.Array:
    """Computes the mean of one value for each image over the images with a label, 0 if no image has one.

    Args:
        values: Values `[B]`.
        labelled: Images with a label, bool `[B]`.
        counts: Counts of the whole batch, if the images are a part of it.
    """
    number = labelled.sum() if counts is None else counts.images
    return jnp.where(labelled, values, 0).sum() / jnp.maximum(number, 1).astype(values.dtype)


def image_means(values: jax.Array, valid: jax.Array) -> jax.Array:
    """Computes the mean of the valid values of each image, `[B]`; 0 for an image without valid values.

    Args:
        values: Values `[B, ...]`.
        valid: Mask of the same shape.
    """
    axes = tuple(range(1, values.ndim))
    number = jnp.maximum(valid.sum(axis=axes), 1).astype(values.dtype)
    return jnp.where(valid, values, 0).sum(axis=axes) / number
