"""IMTL-G: a step with equal projections onto all gradients."""

import jax
import jax.numpy as jnp

from mtl_jax.balancing.core import Balancer, Signals
from mtl_jax.balancing.registry import register
from mtl_jax.balancing.solvers import take_apart
from mtl_jax.balancing.stateless import from_gramian


@register
def imtl_g() -> Balancer:
    """Returns the gradient balance of impartial multi-task learning, IMTL-G (Liu et al., "Towards impartial multi-task
    learning", ICLR 2021, sec. 3.1).

    The step d = sum_t w_t g_t has the same projection d · g_t / |g_t| for all t, and the weights sum to 1. In terms of
    the Gramian, G w = const |g|, so w_t = (C⁻¹ 1)_t / |g_t| up to a factor, where C holds the cosines. Weights may be
    negative and are then used as they are, as in the paper. Scaling a loss by s divides its weight by s, up to the
    common factor that keeps the sum at 1.

    If the gradients are linearly dependent, C⁻¹ is the pseudo-inverse. The exception is a combination of unit gradients
    that is zero although its coefficients do not sum to 0, as for opposite gradients: then d = 0 is the only step with
    equal projections, and the weights are those of this combination. Both cases are limits of C + ridge. If the weights
    sum to 0 (within rounding), they are scaled so that their absolute values sum to 1.

    Shared parameters are those whose gradients form the Gramian. The paper uses gradients with respect to the shared
    features (sec. 3.1), which is cheaper; the argument `encode` of `value_and_grad` does so. Cost: one backward pass
    for each task, memory for its gradient with respect to the shared parameters, and an eigendecomposition of C. A task
    without gradient has weight 0 and is ignored. There are no parameters.
    """

    def weigh(signals: Signals) -> jax.Array:
        norms, cosines, present = take_apart(signals.gramian)
        ones = present.astype(norms.dtype)
        values, vectors = jnp.linalg.eigh(cosines)
        limit = 4 * len(ones) * jnp.finfo(ones.dtype).eps
        parts = ones @ vectors
        regular = values > limit * jnp.max(values)
        outside = jnp.where(regular, 0, parts)
        # The threshold is above eps, because rounding leaves a part of about eps outside of the regular subspace.
        stationary = jnp.sum(outside**2) > limit * jnp.sum(ones)
        inverse = jnp.where(regular, parts / jnp.where(regular, values, 1), 0)
        w = vectors @ jnp.where(stationary, outside, inverse) * present / norms * jnp.min(norms)
        total, size = jnp.sum(w), jnp.sum(jnp.abs(w))
        divisor = jnp.where(jnp.abs(total) > limit * size, total, size)
        return jnp.where(size > 0, w / jnp.where(size > 0, divisor, 1), 0)

    return from_gramian(weigh)
