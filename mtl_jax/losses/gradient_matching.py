"""Gradient matching: edges of a depth map lie where those of the label lie."""

import jax
import jax.numpy as jnp

from mtl_jax.labels import RealValues
from mtl_jax.losses.absolute import absolute
from mtl_jax.losses.masked import LabelCounts, labelled_images, mean_over_images
from mtl_jax.losses.real_values import extended_log
from mtl_jax.losses.registry import register
from mtl_jax.tasks import IGNORE


@register("depth_gradient", kinds=(RealValues,), short="gradient", bounds={"scales": (1, 16), "eps": (1e-6, 1e6)})
def depth_gradient(
    prediction: jax.Array,
    label: jax.Array,
    scales: int = 4,
    log: bool = True,
    eps: float = 0.1,
    *,
    counts: LabelCounts | None = None,
) -> jax.Array:
    """Computes the multi-scale gradient matching term, the mean over the labelled images.

    It is the sum over the scales k of 1/n_k sum(|R[y, x+1] - R[y, x]| + |R[y+1, x] - R[y, x]|), where R is the
    difference of the logarithms of prediction and label at every 2^k-th pixel, n_k is the number of valid pixels among
    them, and both pixels of a difference are valid (MegaDepth, arXiv 1804.00607, eq. 6). The term leaves the depth
    itself open, so it is added to another loss: `silog+0.5*gradient`.

    Args:
        prediction: Depth `[B, H, W, 1]` in metres.
        label: Depth `[B, H, W, 1]` in metres. Pixels of 255 are ignored.
        scales: Number of scales.
        log: False for the difference itself in place of that of logarithms, as in MiDaS (arXiv 1907.01341, eq. 11).
        eps: Value from which on the logarithm is itself, see `depth_silog`.
        counts: Counts of the whole batch, if these images are a part of it.
    """
    valid = label != IGNORE
    label = jnp.where(valid, label, 1)
    if log:
        difference = extended_log(prediction, eps) - extended_log(label, eps)
    else:
        difference = prediction - label
    terms = [_roughness(difference[:, :: 2**k, :: 2**k], valid[:, :: 2**k, :: 2**k]) for k in range(scales)]
    return mean_over_images(sum(terms[1:], terms[0]), labelled_images(valid), counts)


def _roughness(difference: jax.Array, valid: jax.Array) -> jax.Array:
    """Computes the sum of the absolute derivatives over the number of valid pixels of each image, `[B]`."""
    across = absolute(jnp.diff(difference, axis=2))
    down = absolute(jnp.diff(difference, axis=1))
    across = jnp.where(valid[:, :, 1:] & valid[:, :, :-1], across, 0).sum((1, 2, 3))
    down = jnp.where(valid[:, 1:] & valid[:, :-1], down, 0).sum((1, 2, 3))
    return (across + down) / jnp.maximum(valid.sum((1, 2, 3)), 1).astype(difference.dtype)
