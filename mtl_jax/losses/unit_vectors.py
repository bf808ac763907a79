"""Losses of unit vectors such as surface normals."""

import jax
import jax.numpy as jnp

from mtl_jax.labels import UnitVectors
from mtl_jax.losses.absolute import absolute
from mtl_jax.losses.masked import LabelCounts, masked_mean
from mtl_jax.losses.registry import register
from mtl_jax.tasks import IGNORE


@register("normals_l1", kinds=(UnitVectors,), short="l1")
def normals_l1(prediction: jax.Array, label: jax.Array, *, counts: LabelCounts | None = None) -> jax.Array:
    """Computes the mean absolute difference to the normalised prediction over the valid elements (three per pixel).

    Args:
        prediction: Vectors `[B, H, W, 3]` of any length. Each is divided by (its norm + 1e-12).
        label: Unit vectors `[B, H, W, 3]`. Elements of 255 are ignored.
        counts: Counts of the whole batch, if these images are a part of it.
    """
    return masked_mean(absolute(_normalised(prediction) - label), label != IGNORE, counts)


@register("normals_l2", kinds=(UnitVectors,), short="l2")
def normals_l2(prediction: jax.Array, label: jax.Array, *, counts: LabelCounts | None = None) -> jax.Array:
    """Computes the mean squared difference to the normalised prediction over the valid elements (three per pixel).

    Args:
        prediction: Vectors `[B, H, W, 3]` of any length. Each is divided by (its norm + 1e-12).
        label: Unit vectors `[B, H, W, 3]`. Elements of 255 are ignored.
        counts: Counts of the whole batch, if these images are a part of it.
    """
    return masked_mean(jnp.square(_normalised(prediction) - label), label != IGNORE, counts)


@register("normals_cosine", kinds=(UnitVectors,), short="cosine")
def normals_cosine(prediction: jax.Array, label: jax.Array, *, counts: LabelCounts | None = None) -> jax.Array:
    """Computes the mean of 1 - cos over the valid pixels, with the angle between prediction and label.

    Args:
        prediction: Vectors `[B, H, W, 3]` of any length. Each is divided by (its norm + 1e-12). A vector of length 0
            has no direction and the gradient 0.
        label: Unit vectors `[B, H, W, 3]`. Pixels of 255, in all three elements, are ignored.
        counts: Counts of the whole batch, if these images are a part of it.
    """
    return _pixel_mean(1 - (_direction(prediction) * label).sum(-1), label, counts)


@register("normals_angular", kinds=(UnitVectors,), short="angular")
def normals_angular(prediction: jax.Array, label: jax.Array, *, counts: LabelCounts | None = None) -> jax.Array:
    """Computes the mean angle between prediction and label over the valid pixels, in radians.

    The angle is atan2(|n x l|, n . l), whose gradient is finite. It is 0 at 0 and 180 degrees, where the angle has no
    derivative, and for a prediction of length 0, whose angle is 90 degrees.

    Args:
        prediction: Vectors `[B, H, W, 3]` of any length but 0.
        label: Unit vectors `[B, H, W, 3]`. Pixels of 255, in all three elements, are ignored.
        counts: Counts of the whole batch, if these images are a part of it.
    """
    zero = (prediction == 0).all(-1, keepdims=True)
    unit = _normalised(jnp.where(zero, 1, prediction))
    sine = _norm(jnp.cross(unit, label))[..., 0]
    angle = jnp.arctan2(sine, (unit * label).sum(-1))
    return _pixel_mean(jnp.where(zero[..., 0], jnp.pi / 2, angle), label, counts)


def _direction(vectors: jax.Array) -> jax.Array:
    """Divides vectors `[..., 3]` by (their norm + 1e-12). A vector of length 0 stays so, and has the gradient 0."""
    zero = (vectors == 0).all(-1, keepdims=True)
    return jnp.where(zero, 0, _normalised(jnp.where(zero, 1, vectors)))


def _normalised(vectors: jax.Array) -> jax.Array:
    """Divides vectors `[..., 3]` by (their norm + 1e-12)."""
    return vectors / (_norm(vectors) + 1e-12)


def _norm(vectors: jax.Array) -> jax.Array:
    """Computes the norm of vectors `[..., 3]`, `[..., 1]`.

    The square root has no derivative at 0. The gradient of the norm is set to 0 there, as in torch.
    """
    squared = jnp.square(vectors).sum(-1, keepdims=True)
    nonzero = squared > 0
    return jnp.where(nonzero, jnp.sqrt(jnp.where(nonzero, squared, 1)), 0)


def _pixel_mean(values: jax.Array, label: jax.Array, counts: LabelCounts | None) -> jax.Array:
    """Computes the mean over the valid pixels of values `[B, H, W]`; `counts` counts the elements, three per pixel."""
    valid = (label != IGNORE).all(-1)
    total = jnp.where(valid, values, 0).sum()
    number = valid.sum() if counts is None else counts.valid / label.shape[-1]
    return total / jnp.maximum(number, 1).astype(values.dtype)
