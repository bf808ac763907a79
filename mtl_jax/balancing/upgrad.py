"""UPGrad: the mean of the gradients after each is freed of its conflicts."""

import jax
import jax.numpy as jnp

from mtl_jax.balancing.core import Balancer, Signals
from mtl_jax.balancing.registry import register
from mtl_jax.balancing.solvers import dual_cone
from mtl_jax.balancing.stateless import from_gramian


@register
def upgrad() -> Balancer:
    """Returns Jacobian descent with UPGrad (Quinton & Rey, arXiv 2406.16232, prop. 1).

    d = 1 / T times the sum of the projections of every gradient onto the dual cone {x: g_t · x >= 0 for all t}. The
    step conflicts with no task, and is the mean gradient if no two gradients conflict. It is linear under scaling: a
    loss scaled by s contributes s times its projection, and the dual cone does not depend on the scales.

    Shared parameters are those whose gradients form the Gramian. Cost: one backward pass for each task, and memory for
    its gradient with respect to the shared parameters. The T quadratic programs are solved together
    (`solvers.dual_cone`), exactly for up to 12 tasks. Every weight is at least 1 / T, so the weights sum to 1 or more.
    A task without gradient has weight 0 and is ignored. There are no parameters.

    If two gradients are opposite within the square root of eps (3e-4 in float32), rounding decides whether they count
    as opposite, and g_t · d >= 0 holds up to that fraction of the lengths. Otherwise it holds up to about 10 T eps.
    """

    def weigh(signals: Signals) -> jax.Array:
        present = jnp.sum(jnp.diagonal(signals.gramian) > 0)
        return jnp.sum(dual_cone(signals.gramian), axis=0) / jnp.maximum(present, 1)

    return from_gramian(weigh)
