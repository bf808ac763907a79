"""CAGrad: the direction near the mean gradient that serves the worst-off task best."""

import jax
import jax.numpy as jnp

from mtl_jax.balancing.core import Balancer, Signals
from mtl_jax.balancing.registry import register
from mtl_jax.balancing.solvers import conflict_averse, take_apart
from mtl_jax.balancing.stateless import from_gramian


@register
def cagrad(*, c: float = 0.4) -> Balancer:
    """Returns conflict-averse gradient descent (Liu et al., arXiv 2110.14048, sec. 3.1 and alg. 1).

    d = argmax of min_t g_t · d over |d - g_0| <= c |g_0|, with the mean gradient g_0. By duality
    d = g_0 + c |g_0| g_w / |g_w|, where w in the simplex minimises g_w · g_0 + c |g_0| |g_w|, g_w = sum_t w_t g_t.
    Hence the weights are 1 / T + c |g_0| w_t / |g_w|. For c = 0 the direction is the mean gradient; as c tends to
    infinity it tends to that of MGDA.

    Shared parameters are those whose gradients form the Gramian. Cost: one backward pass for each task, and memory for
    its gradient with respect to the shared parameters; w is exact for up to 12 tasks (`solvers.conflict_averse`). The
    weights sum to 1 + c |g_0| / |g_w|, as in the paper's algorithm. The paper's code divides by 1 + c² and other code
    by 1 + c, which can be part of the learning rate. |g_w| has a lower bound, the rounding error of a sum that is 0. A
    task without gradient has weight 0 and is ignored.

    Args:
        c: Radius of the ball relative to |g_0|. It must be below 1 for convergence to a minimum of the mean loss. The
            paper uses 0.4 for NYUv2 (sec. 5.2).
    """
    if c < 0:
        raise ValueError(f"c is {c}; the radius of CAGrad's ball must be 0 or more")

    def weigh(signals: Signals) -> jax.Array:
        gramian = signals.gramian
        norms, cosines, present = take_apart(gramian)
        w = conflict_averse(gramian, c)
        largest = jnp.max(jnp.where(present, norms, 0))
        lengths = jnp.where(present, norms / jnp.where(largest > 0, largest, 1), 0)
        mean = present / jnp.maximum(jnp.sum(present), 1).astype(w.dtype)

        def length(weights: jax.Array, least: float) -> jax.Array:
            """Computes the length of the weighted sum, at least the fraction `least` of the sum of the lengths."""
            v = weights * lengths
            product = jnp.matmul(cosines, v, precision=jax.lax.Precision.HIGHEST)
            return jnp.maximum(jnp.sqrt(jnp.maximum(v @ product, 0)), least * jnp.sum(v))

        along = length(w, float(4 * len(w) * jnp.finfo(w.dtype).eps) ** 0.5)
        return mean + c * length(mean, 0) / jnp.where(along > 0, along, 1) * w

    return from_gramian(weigh)
