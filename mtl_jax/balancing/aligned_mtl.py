"""Aligned-MTL: gradients whose principal components are scaled to one length."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.balancing.core import Balancer, Signals, State, Tree, check_values
from mtl_jax.balancing.registry import register
from mtl_jax.balancing.stateless import from_gramian


@register
def aligned_mtl(*, preference: Sequence[float] | None = None) -> Balancer:
    """Returns Aligned-MTL, independent component alignment (Senushkin et al., arXiv 2305.19000, alg. 1), variant "min".

    With G = V diag(λ) Vᵀ the weights are sqrt(λ_min) V diag(λ^-1/2) Vᵀ p. The matrix of the gradients is thus replaced
    by the nearest matrix whose singular values all equal the least one other than zero. The aligned gradients have the
    same length, and are orthogonal if the original ones were independent, so the step conflicts with none of them. The
    method is not invariant to the scale of a loss: the least singular value, and with it the step, follows the smallest
    gradient.

    Eigenvalues below 4 T eps times the largest one count as zero. In float32 these are singular values that differ by a
    factor beyond about 700 / sqrt(T / 4). Near this limit the step can be very short: if losses differ by orders of
    magnitude, scale them beforehand.

    Shared parameters are those whose gradients form the Gramian. Cost: one backward pass for each task, memory for its
    gradient with respect to the shared parameters, and an eigendecomposition. The weights have no fixed sum; for
    orthogonal gradients of one length they are p. A task without gradient has weight 0, and its preference goes to the
    other tasks.

    Args:
        preference: The preferences p, one value of at least 0 for each task, which are scaled to sum to 1. None means
            1 / T each, the mean of the losses.
    """

    if preference is not None and (min(preference) < 0 or max(preference) <= 0):
        raise ValueError(f"preference is {tuple(preference)}; all must be at least 0, and one of them positive")

    def init(num_tasks: int, shared: Tree) -> State:
        check_values("preference", preference, num_tasks)
        return ()

    def weigh(signals: Signals) -> jax.Array:
        gramian = signals.gramian
        tasks = len(gramian)
        present = jnp.diagonal(gramian) > 0
        p = jnp.where(present, jnp.asarray(np.ones(tasks) if preference is None else preference, gramian.dtype), 0)
        p = p / jnp.where(jnp.sum(p) > 0, jnp.sum(p), 1)
        trace = jnp.trace(gramian)
        values, vectors = jnp.linalg.eigh(gramian / jnp.where(trace > 0, trace, 1))
        regular = (values > 4 * tasks * jnp.finfo(gramian.dtype).eps * jnp.max(values)) & (values > 0)
        least = jnp.min(jnp.where(regular, values, 1))  # no eigenvalue is above the trace, which is 1 here
        scale = jnp.where(regular, jnp.sqrt(least / jnp.where(regular, values, least)), 0)
        return jnp.where(present, vectors @ (scale * (p @ vectors)), 0)

    return from_gramian(weigh)._replace(init=init)
