"""The Lovasz-softmax loss, a convex surrogate of the intersection over union."""

from typing import Literal

import jax
import jax.numpy as jnp

from mtl_jax.labels import ClassIds
from mtl_jax.losses.cross_entropy import class_ids
from mtl_jax.losses.masked import LabelCounts, labelled_images, mean_over_images
from mtl_jax.losses.registry import register
from mtl_jax.tasks import IGNORE


@register("lovasz_softmax", kinds=(ClassIds,), short="lovasz")
def lovasz_softmax(
    logits: jax.Array,
    label: jax.Array,
    classes: Literal["present", "all"] = "present",
    *,
    counts: LabelCounts | None = None,
) -> jax.Array:
    """Computes the mean over the labelled images of the Lovasz extension of 1 - IoU, averaged over the classes.

    This is arXiv 1705.08790, eq. 11, for each image. The errors of every class are sorted, so the loss takes more time
    and memory than the others: about 8 bytes for each pixel and class.

    Args:
        logits: Logits `[B, H, W, C]`.
        label: Class ids `[B, H, W, 1]`. Pixels of 255 are ignored, and fractions are cut off.
        classes: "present" for the classes in the label of the image, or "all".
        counts: Counts of the whole batch, if these images are a part of it.
    """
    images, num_classes = len(logits), logits.shape[-1]
    ids = class_ids(label).reshape(images, -1)
    valid = ids != IGNORE
    probabilities = jnp.moveaxis(jax.nn.softmax(logits, axis=-1).reshape(images, -1, num_classes), -1, 0)

    def of_class(one: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Computes the loss of a class in each image, `[B]`, and whether the image shows the class, `[B]`."""
        number, probability = one
        truth = valid & (ids == number)
        errors = jnp.where(valid, jnp.where(truth, 1 - probability, probability), 0)
        return jax.vmap(_extension)(errors, truth), truth.any(-1)

    losses, present = jax.lax.map(of_class, (jnp.arange(num_classes), probabilities))
    counted = present if classes == "present" else jnp.ones_like(present)
    number = jnp.maximum(counted.sum(0), 1).astype(losses.dtype)
    return mean_over_images(jnp.where(counted, losses, 0).sum(0) / number, labelled_images(valid), counts)


def _extension(errors: jax.Array, truth: jax.Array) -> jax.Array:
    """Computes the Lovasz extension of the Jaccard loss at the errors `[N]`, where the class is at `truth` `[N]`.

    Pixels with the error 0 add nothing, wherever they stand.
    """
    order = jnp.argsort(-jax.lax.stop_gradient(errors))
    errors, truth = errors[order], truth[order].astype(errors.dtype)
    size = truth.sum()
    union = size + jnp.cumsum(1 - truth)
    jaccard = 1 - (size - jnp.cumsum(truth)) / union
    slopes = jnp.diff(jaccard, prepend=jnp.zeros(1, jaccard.dtype))
    return errors @ slopes
