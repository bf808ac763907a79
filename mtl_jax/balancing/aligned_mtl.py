"""Aligned-MTL: the gradients' principal components, all made equally long."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.balancing.core import Balancer, Signals, State, Tree, check_values
from mtl_jax.balancing.registry import register
from mtl_jax.balancing.stateless import from_gramian


@register
def aligned_mtl(*, preference: Sequence[float] | None = None) -> Balancer:
    """Independent component alignment (Senushkin et al., arXiv 2305.19000, alg. 1), variant "min".

    With G = V diag(λ) Vᵀ the weights are sqrt(λ_min) V diag(λ^-1/2) Vᵀ p: the matrix of gradients is replaced by the
    nearest one with all singular values equal to its least one, other than zero. Every gradient then is as long, and
    they are orthogonal where they were independent: the step conflicts with none of these aligned gradients. Not
    invariant to the scale of a loss: the least singular value follows the smallest gradient, and the step with it.

    Eigenvalues below 4 T eps of the largest are zero: in float32, singular values that differ by a factor beyond about
    700 / sqrt(T / 4). Near this limit the step's length is that of what little is left: scale losses that are orders of
    magnitude apart beforehand.

    Shared parameters are those whose gradients form the Gramian. Cost: a backward pass and a gradient to them a task,
    and an eigendecomposition. The weights have no fixed sum; for orthogonal gradients of one length they are p. A task
    without gradient has weight 0 and its preference goes to the others.

    Args:
        preference: p, one value >= 0 for each task, scaled to sum 1 here; None is 1 / T, the mean of the losses.
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
        least = jnp.min(jnp.where(regular, values, 1))  # none is above the trace, 1 here
        scale = jnp.where(regular, jnp.sqrt(least / jnp.where(regular, values, least)), 0)
        return jnp.where(present, vectors @ (scale * (p @ vectors)), 0)

    return from_gramian(weigh)._replace(init=init)
