"""IMTL-G: equal projections of the step onto every gradient."""

import jax
import jax.numpy as jnp

from mtl_jax.balancing.core import Balancer, Signals
from mtl_jax.balancing.registry import register
from mtl_jax.balancing.solvers import take_apart
from mtl_jax.balancing.stateless import from_gramian


@register
def imtl_g() -> Balancer:
    """Impartial multi-task learning, gradient balance (Liu et al., "Towards impartial multi-task learning", ICLR 2021,
    sec. 3.1).

    The step d = sum_t w_t g_t has the same projection d · g_t / |g_t| for all t, and the weights sum to 1. In the
    Gramian: G w = const |g|, so w_t = (C⁻¹ 1)_t / |g_t| up to a factor, C the cosines. Weights may be negative; the
    paper keeps them, and so do we. Scaling a loss by s divides its weight by s, up to the common factor that keeps the
    sum 1.

    Where the gradients depend on one another, C⁻¹ 1 is the pseudo-inverse's, or, where some combination of unit
    gradients with a sum of coefficients other than 0 is zero (as with opposite ones), that combination: d = 0 is the
    only step of equal projections. Both are limits of C + ridge. Where the weights sum to 0 (within rounding) no scale
    gives 1, and their absolute values sum to 1 instead.

    Shared parameters are those whose gradients form the Gramian; the paper takes gradients to the shared feature (sec.
    3.1), which is cheaper: see `mgda`. Cost: a backward pass and a gradient to the shared parameters a task, and an
    eigendecomposition of C. A task without gradient has weight 0 and counts nowhere. No hyper-parameters.
    """

    def weigh(signals: Signals) -> jax.Array:
        norms, cosines, present = take_apart(signals.gramian)
        ones = present.astype(norms.dtype)
        values, vectors = jnp.linalg.eigh(cosines)
        limit = 4 * len(ones) * jnp.finfo(ones.dtype).eps
        parts = ones @ vectors
        regular = values > limit * jnp.max(values)
        outside = jnp.where(regular, 0, parts)
        # Rounding alone leaves an outside part of about eps.
        stationary = jnp.sum(outside**2) > limit * jnp.sum(ones)
        inverse = jnp.where(regular, parts / jnp.where(regular, values, 1), 0)
        w = vectors @ jnp.where(stationary, outside, inverse) * present / norms * jnp.min(norms)
        total, size = jnp.sum(w), jnp.sum(jnp.abs(w))
        divisor = jnp.where(jnp.abs(total) > limit * size, total, size)
        return jnp.where(size > 0, w / jnp.where(size > 0, divisor, 1), 0)

    return from_gramian(weigh)
