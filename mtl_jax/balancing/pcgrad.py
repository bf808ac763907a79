"""PCGrad: projection of conflicting gradients, computed from their inner products alone."""

import jax
import jax.numpy as jnp

from mtl_jax.balancing.core import Balancer, Decision, Signals, State, Tree
from mtl_jax.balancing.registry import register


@register
def pcgrad() -> Balancer:
    """Returns PCGrad, "gradient surgery" (Yu et al., arXiv 2001.06782, algorithm 1).

    From each gradient g_i the components that oppose the gradients of the other tasks are removed, one task after the
    other in random order. The results are summed:

        p_i = g_i;    for j ≠ i:    p_i <- p_i - min(0, p_i·g_j) / (g_j·g_j) g_j;    gradient = sum of p_i

    Each p_i is a linear combination of the original gradients, p_i = Jᵀ a_i, and p_i·g_j = (G a_i)_j, so the Gramian
    suffices. A zero gradient conflicts with no other gradient.

    Shared parameters: those over which the inner products run, all together; the paper uses the whole shared trunk.
    Weights: at least 1 each, and exactly 1 if no gradients conflict or there is a single task; no fixed sum.
    Cost: one forward and T backward passes, memory for T gradients; the projections cost O(T³). No state. The orders
    depend on the random key of the step alone.
    """

    def init(num_tasks: int, shared: Tree) -> State:
        return ()

    def update(state: State, signals: Signals) -> tuple[Decision, State]:
        products = signals.gramian

        def project(combinations: jax.Array, other: jax.Array) -> tuple[jax.Array, None]:
            dots = jnp.sum(jnp.matmul(combinations, products, precision="highest") * other, axis=1)
            squares = jnp.sum(other * jnp.diagonal(products)[None], axis=1)
            step = jnp.where(squares > 0, -jnp.minimum(dots, 0) / jnp.where(squares > 0, squares, 1), 0)
            return combinations + step[:, None] * other, None

        originals = jnp.eye(len(products), dtype=products.dtype)  # row i is a_i
        orders = partners(signals.key, len(products)).astype(products.dtype)
        combinations, _ = jax.lax.scan(project, originals, orders)
        return Decision(jnp.sum(combinations, axis=0)), state

    return Balancer(init, update, "gramian")


def partners(key: jax.Array, num_tasks: int) -> jax.Array:
    """Draws an order of all other tasks for each task.

    Returns:
        One-hot rows `[T - 1, T, T]`: entry [k, i] selects the k-th partner of task i.
    """
    offsets = jax.vmap(lambda k: jax.random.permutation(k, num_tasks - 1))(jax.random.split(key, num_tasks)) + 1
    order = (jnp.arange(num_tasks)[:, None] + offsets) % num_tasks  # an offset of 1 to T - 1 is never the task itself
    return jnp.swapaxes(jax.nn.one_hot(order, num_tasks), 0, 1)
