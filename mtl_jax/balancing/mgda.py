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
    """Returns the multiple-gradient descent algorithm, MGDA (Sener & Koltun, arXiv 1810.04650, eq. 3 and alg. 2).

    w = argmin |sum_t w_t g_t|² over w >= 0, sum of w = 1. The direction d = sum_t w_t g_t conflicts with no task:
    g_t · d >= |d|² for every t. It is 0 at a Pareto-stationary point. It is never longer than the shortest gradient,
    which therefore has most of the weight: scaling a loss down by s scales the step down by about s.

    Shared parameters are those whose gradients form the Gramian.

    Cost: one backward pass for each task, and memory for its gradient with respect to the shared parameters. The
    weights are computed by `solvers.min_norm`, exactly for up to 12 tasks, and sum to 1. A task without gradient has
    weight 0 and the others are balanced among themselves (by the equation, no step would be taken, because 0 is then
    in the convex hull of the gradients).

    Args:
        normalization: Divisor of each gradient in the computation of w: "none" for no division, "l2" for the norm of
            the gradient, "loss" for the loss, "loss+" for the product of both. The step sums the gradients without this
            division, as in the paper's code, so g_t · d >= 0 is certain for "none" only. The paper picks one for each
            data set; "none" is its equation.
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
            scale *= jnp.where(losses > 0, losses, 1)  # only a positive loss can normalise its gradient
        return min_norm(gramian / scale[:, None] / scale[None, :])

    return from_gramian(weigh)


@register
def mgda_ub(*, normalization: Normalization = "none") -> Balancer:
    """Returns the upper bound of MGDA, MGDA-UB (Sener & Koltun, arXiv 1810.04650, sec. 3.3): `mgda` on shared features.

    The weights minimise |sum_t w_t dL_t/dZ|², where Z holds the features of all images of the batch that the heads
    read. This value times the norm of dZ/dθ is an upper bound of MGDA's objective, and the backward passes of the tasks
    do not go through the encoder.

    Shared parameters: the parameters of the encoder, which `value_and_grad` takes as `encode`. The heads must be
    independent of each other.

    Cost: one backward pass for each task through its head, one through the encoder, and memory for T gradients with
    respect to Z.

    Args:
        normalization: Divisor of each gradient in the computation of the weights, see `mgda`.
    """
    return mgda(normalization=normalization)._replace(features=True)
