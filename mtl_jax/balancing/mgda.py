"""MGDA: the shortest vector in the convex hull of the gradients."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from mtl_jax.balancing.core import Balancer, Signals
from mtl_jax.balancing.registry import register
from mtl_jax.balancing.solvers import min_norm, take_apart
from mtl_jax.balancing.stateless import from_gramian

Normalization = Literal["none", "l2", "loss", "loss+"]


@register
def mgda(*, normalization: Normalization = "none") -> Balancer:
    """Multiple-gradient descent (Sener & Koltun, arXiv 1810.04650, eq. 3 and alg. 2).

    w = argmin |sum_t w_t g_t|² over w >= 0, sum of w = 1. The direction d conflicts with no task: g_t · d >= |d|² for
    every t. It is 0 where the point is Pareto-stationary, and never longer than the shortest gradient, which therefore
    has most of the weight: scaling a loss down by s scales the step down by about s.

    Shared parameters are those whose gradients form the Gramian.

    Cost: a backward pass and a gradient to the shared parameters a task; solution by `solvers.min_norm`, exact up
    to 12 tasks. The weights sum to 1. A task without gradient has weight 0 and the others are balanced among themselves
    (strictly, 0 is in the hull then, and no step would be taken).

    Args:
        normalization: what each gradient is divided by before w is computed; the step is the sum of the gradients as
            they were, as in the paper's code, so that g_t · d >= 0 is certain for "none" only. "l2": its norm; "loss":
            the loss; "loss+": their product. The paper picks one a data set; "none" is its equation.
    """
    if normalization not in get_args(Normalization):
        raise ValueError(f"normalization is {normalization!r}; choose one of {', '.join(get_args(Normalization))}")

    def weigh(signals: Signals) -> jax.Array:
        gramian = signals.gramian
        scale = jnp.ones(len(gramian), gramian.dtype)
        if normalization in ("l2", "loss+"):
            scale *= take_apart(gramian).norms
        if normalization in ("loss", "loss+"):
            losses = signals.losses.astype(gramian.dtype)
            scale *= jnp.where(losses > 0, losses, 1)  # a gradient of a loss that is not positive stays as it is
        return min_norm(gramian / scale[:, None] / scale[None, :])

    return from_gramian(weigh)


@register
def mgda_ub(*, normalization: Normalization = "none") -> Balancer:
    """MGDA's upper bound (Sener & Koltun, arXiv 1810.04650, sec. 3.3): `mgda` of the shared representation.

    The weights minimise |sum_t w_t dL_t/dZ|², with Z the features of all images of the batch that the heads read. Times
    the norm of dZ/dθ it bounds MGDA's objective from above, and no task's backward pass goes through the encoder.

    Shared parameters: the encoder's, which `value_and_grad` takes as `encode`; the heads are independent of each other.

    Cost: a backward pass a task through its own head, one through the encoder, and memory for T gradients to Z.

    Args:
        normalization: as in `mgda`.
    """
    return mgda(normalization=normalization)._replace(features=True)
