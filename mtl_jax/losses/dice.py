"""The dice losses: one minus the overlap of prediction and label, computed for each image."""

import math
from typing import Literal

import jax
import jax.numpy as jnp

from mtl_jax.labels import ClassIds, Foreground
from mtl_jax.losses.cross_entropy import class_ids
from mtl_jax.losses.masked import LabelCounts, labelled_images, mean_over_images
from mtl_jax.losses.registry import register
from mtl_jax.tasks import IGNORE

_BOUNDS = {"smooth": (0.0, math.inf)}


@register("softmax_dice", kinds=(ClassIds,), short="dice", bounds=_BOUNDS)
def softmax_dice(
    logits: jax.Array,
    label: jax.Array,
    smooth: float = 1.0,
    squared: bool = True,
    classes: Literal["present", "all"] = "present",
    *,
    counts: LabelCounts | None = None,
) -> jax.Array:
    """Computes the mean over the labelled images of the mean over the classes of 1 - dice.

    dice = (2 sum(p g) + smooth) / (sum(p^2) + sum(g^2) + smooth) over the valid pixels of an image, with the
    probabilities p of a class and g = 1 where it is the label (V-Net, arXiv 1606.04797, sec. 3).

    Args:
        logits: Logits `[B, H, W, C]`.
        label: Class ids `[B, H, W, 1]`. Pixels of 255 are ignored, and fractions are cut off.
        smooth: Number of pixels by which both the overlap and the sizes are raised.
        squared: False for sum(p) in place of sum(p^2).
        classes: "present" for the classes in the label of the image, or "all".
        counts: Counts of the whole batch, if these images are a part of it.
    """
    ids = class_ids(label)
    valid = ids != IGNORE
    truth = jax.nn.one_hot(jnp.where(valid, ids, -1), logits.shape[-1], dtype=logits.dtype)
    probabilities = jnp.where(valid[..., None], jax.nn.softmax(logits, axis=-1), 0)
    losses = 1 - _dice(probabilities, truth, smooth, squared)
    counted = truth.any(axis=(1, 2)) if classes == "present" else jnp.ones(losses.shape, bool)
    number = jnp.maximum(counted.sum(-1), 1).astype(losses.dtype)
    return mean_over_images(jnp.where(counted, losses, 0).sum(-1) / number, labelled_images(valid), counts)


@register("sigmoid_dice", kinds=(Foreground,), short="dice", bounds=_BOUNDS)
def sigmoid_dice(
    logits: jax.Array,
    label: jax.Array,
    smooth: float = 1.0,
    squared: bool = True,
    *,
    counts: LabelCounts | None = None,
) -> jax.Array:
    """Computes the mean over the labelled images of 1 - dice of the foreground.

    dice = (2 sum(p g) + smooth) / (sum(p^2) + sum(g^2) + smooth) over the valid elements of an image, with the
    probability p of the foreground and g = 1 where the label is at least 0.5 (V-Net, arXiv 1606.04797, sec. 3).

    Args:
        logits: Logits `[B, H, W, C]`.
        label: Label `[B, H, W, C]`. Elements >= 0.5 are foreground, and elements of 255 are ignored.
        smooth: Number of pixels by which both the overlap and the sizes are raised.
        squared: False for sum(p) in place of sum(p^2).
        counts: Counts of the whole batch, if these images are a part of it.
    """
    valid = label != IGNORE
    truth = (valid & (label >= 0.5)).astype(logits.dtype)
    probabilities = jnp.where(valid, jax.nn.sigmoid(logits), 0)
    losses = 1 - _dice(probabilities, truth, smooth, squared)
    return mean_over_images(losses.mean(-1), labelled_images(valid), counts)


def _dice(probabilities: jax.Array, truth: jax.Array, smooth: float, squared: bool) -> jax.Array:
    """Computes the dice of each image and channel, `[B, C]`, of `[B, H, W, C]`."""
    overlap = 2 * (probabilities * truth).sum((1, 2)) + smooth
    size = (jnp.square(probabilities) if squared else probabilities).sum((1, 2)) + truth.sum((1, 2)) + smooth
    return overlap / jnp.where(size > 0, size, 1)
