"""UPGrad: the mean of the gradients, each first freed of its conflicts."""

import jax
import jax.numpy as jnp

from mtl_jax.balancing.core import Balancer, Signals
from mtl_jax.balancing.registry import register
from mtl_jax.balancing.solvers import dual_cone
from mtl_jax.balancing.stateless import from_gramian


@register
def upgrad() -> Balancer:
    """Jacobian descent with UPGrad (Quinton & Rey, arXiv 2406.16232, prop. 1).

    d = 1 / T times the sum of the projections of every gradient onto the dual cone {x: g_t · x >= 0 for all t}. It
    conflicts with no task, is the mean gradient where no two gradients conflict, and is linear under scaling: a loss
    scaled by s contributes s times its projection, which itself does not depend on the scales.

    Shared parameters are those whose gradients form the Gramian. Cost: a backward pass and a gradient to them a task;
    the T quadratic programs are solved together (`solvers.dual_cone`), exactly up to 12 tasks. Every weight is at
    least 1 / T, so they sum to 1 or more. A task without gradient has weight 0 and counts nowhere. No hyper-parameters.

    Gradients opposite to each other within the square root of eps (3e-4 in float32) count as opposite or not as
    rounding will have it; g_t · d >= 0 then holds up to that fraction of the lengths. Elsewhere up to about 10 T eps.
    """

    def weigh(signals: Signals) -> jax.Array:
        present = jnp.sum(jnp.diagonal(signals.gramian) > 0)
        return jnp.sum(dual_cone(signals.gramian), axis=0) / jnp.maximum(present, 1)

    return from_gramian(weigh)
