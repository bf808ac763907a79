"""Every gradient scaled to the mean of the gradients' norms."""

import jax
import jax.numpy as jnp

from mtl_jax.balancing.core import Balancer, Signals
from mtl_jax.balancing.registry import register
from mtl_jax.balancing.solvers import take_apart
from mtl_jax.balancing.stateless import from_gramian


@register
def average_norm() -> Balancer:
    """Losses scaled by their gradients' norms (Guo et al., arXiv 2509.23915).

    w_t = mean over s of |g_s|, divided by |g_t|: all scaled gradients have one length, and their lengths' sum is what
    it was. Conflicts stay. Scaling a loss by s changes the common length, and nothing between the tasks. The weights
    have no fixed sum: at least T, as the mean of numbers times the mean of their inverses is 1 or more.

    A task without gradient has weight 0 and does not enter the mean: the scale of the others is theirs alone.

    Shared parameters are those whose gradients form the Gramian, of which only the diagonal is used. Cost: a backward
    pass and a gradient to them a task. No hyper-parameters.
    """

    def weigh(signals: Signals) -> jax.Array:
        norms, _, present = take_apart(signals.gramian)
        mean = jnp.sum(jnp.where(present, norms, 0)) / jnp.maximum(jnp.sum(present), 1)
        return jnp.where(present, mean / norms, 0)

    return from_gramian(weigh)
