"""Scaling of every gradient to the mean norm of the gradients."""

import jax
import jax.numpy as jnp

from mtl_jax.balancing.core import Balancer, Signals
from mtl_jax.balancing.registry import register
from mtl_jax.balancing.solvers import take_apart
from mtl_jax.balancing.stateless import from_gramian


@register
def average_norm() -> Balancer:
    """Returns the method that scales losses by the norms of their gradients (Guo et al., arXiv 2509.23915).

    w_t = mean over s of |g_s|, divided by |g_t|. All scaled gradients have the same length, and the sum of the lengths
    does not change. Conflicts between gradients remain. Scaling a loss by s changes only the common length, not the
    ratios between the tasks. The weights have no fixed sum; it is at least T, because the mean of positive numbers
    times the mean of their inverses is at least 1.

    A task without gradient has weight 0 and does not enter the mean.

    Shared parameters are those whose gradients form the Gramian, of which only the diagonal is used. Cost: one backward
    pass for each task, and memory for its gradient with respect to the shared parameters. There are no parameters.
    """

    def weigh(signals: Signals) -> jax.Array:
        norms, _, present = take_apart(signals.gramian)
        mean = jnp.sum(jnp.where(present, norms, 0)) / jnp.maximum(jnp.sum(present), 1)
        return jnp.where(present, mean / norms, 0)

    return from_gramian(weigh)
