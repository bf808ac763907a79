"""Losses of real values such as depth, which compare each pixel on its own."""

import math

import jax
import jax.numpy as jnp

from mtl_jax.labels import RealValues
from mtl_jax.losses.absolute import absolute
from mtl_jax.losses.masked import LabelCounts, image_means, labelled_images, masked_mean, mean_over_images
from mtl_jax.losses.registry import register
from mtl_jax.tasks import IGNORE


@register("depth_l1", kinds=(RealValues,), short="l1")
def depth_l1(prediction: jax.Array, label: jax.Array, *, counts: LabelCounts | None = None) -> jax.Array:
    """Computes the mean absolute difference in metres over the valid pixels.

    Args:
        prediction: Depth `[B, H, W, 1]` in metres.
        label: Depth `[B, H, W, 1]` in metres. Pixels of 255 are ignored.
        counts: Counts of the whole batch, if these images are a part of it.
    """
    return masked_mean(absolute(prediction - label), label != IGNORE, counts)


@register("depth_l2", kinds=(RealValues,), short="l2")
def depth_l2(prediction: jax.Array, label: jax.Array, *, counts: LabelCounts | None = None) -> jax.Array:
    """Computes the mean squared difference over the valid pixels.

    Args:
        prediction: Depth `[B, H, W, 1]` in metres.
        label: Depth `[B, H, W, 1]` in metres. Pixels of 255 are ignored.
        counts: Counts of the whole batch, if these images are a part of it.
    """
    return masked_mean(jnp.square(prediction - label), label != IGNORE, counts)


@register("depth_berhu", kinds=(RealValues,), short="berhu", bounds={"share": (1e-6, 1)})
def depth_berhu(
    prediction: jax.Array, label: jax.Array, share: float = 0.2, *, counts: LabelCounts | None = None
) -> jax.Array:
    """Computes the mean reverse Huber loss over the valid pixels.

    A difference d counts as |d| up to c, and as (d^2 + c^2) / (2 c) above it (arXiv 1606.00373, eq. 1). Here c is
    `share` times the largest |d| of the image; in the paper it is that of the batch. The gradient takes c for a
    constant.

    Args:
        prediction: Depth `[B, H, W, 1]` in metres.
        label: Depth `[B, H, W, 1]` in metres. Pixels of 255 are ignored.
        share: c as a share of the largest difference.
        counts: Counts of the whole batch, if these images are a part of it.
    """
    valid = label != IGNORE
    difference = absolute(jnp.where(valid, prediction - label, 0))
    c = share * jax.lax.stop_gradient(difference.max(axis=(1, 2, 3), keepdims=True))
    above = (jnp.square(difference) + jnp.square(c)) / (2 * jnp.where(c > 0, c, 1))
    return masked_mean(jnp.where(difference <= c, difference, above), valid, counts)


@register(
    "depth_silog",
    kinds=(RealValues,),
    short="silog",
    bounds={"variance_focus": (0, 1), "eps": (1e-6, 1e6)},
)
def depth_silog(
    prediction: jax.Array,
    label: jax.Array,
    variance_focus: float = 0.5,
    root: bool = False,
    eps: float = 0.1,
    *,
    counts: LabelCounts | None = None,
) -> jax.Array:
    """Computes the scale-invariant error of logarithms, the mean over the labelled images.

    The error of an image is mean(d^2) - lambda mean(d)^2 with d = log prediction - log label (arXiv 1406.2283, eq. 4).
    A value below `eps` has no usable logarithm: there the logarithm is continued by its tangent at `eps`, so that
    a prediction of 0 or less has a finite loss, and a gradient that raises it.

    Args:
        prediction: Depth `[B, H, W, 1]` in metres.
        label: Depth `[B, H, W, 1]` in metres. Pixels of 255 are ignored.
        variance_focus: Lambda, 0.5 in the paper; 0.85 in later work (arXiv 1907.10326).
        root: True for the square root of the error of each image, as in later work.
        eps: Value from which on the logarithm is itself.
        counts: Counts of the whole batch, if these images are a part of it.
    """
    valid = label != IGNORE
    difference = extended_log(prediction, eps) - extended_log(jnp.where(valid, label, 1), eps)
    errors = image_means(jnp.square(difference), valid) - variance_focus * jnp.square(image_means(difference, valid))
    if root:
        positive = errors > 0
        errors = jnp.where(positive, jnp.sqrt(jnp.where(positive, errors, 1)), 0)
    return mean_over_images(errors, labelled_images(valid), counts)


def extended_log(x: jax.Array, eps: float) -> jax.Array:
    """Computes log x from `eps` on, and below it the tangent log eps + (x - eps) / eps."""
    return jnp.where(x > eps, jnp.log(jnp.maximum(x, eps)), math.log(eps) + (x - eps) / eps)
