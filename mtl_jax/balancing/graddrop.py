"""Elements of the gradients dropped until all have one sign."""

import functools
import itertools

import jax
import jax.numpy as jnp

from mtl_jax.balancing.core import Balancer, Decision, Signals, State, Tree
from mtl_jax.balancing.registry import register


@register
def graddrop(*, leak: float = 0.0) -> Balancer:
    """Gradient sign dropout (Chen et al., NeurIPS 2020, arXiv 2010.06808, sec. 3, algorithm 1).

    Element by element, with the sign purity P = (1 + sum of g_t / sum of |g_t|) / 2 and U drawn uniformly from [0, 1),

        gradient = sum over t of (leak + (1 - leak) M_t) g_t,
        M_t = 1 where U < P and g_t > 0, or U >= P and g_t < 0; else 0

    i.e. the positive parts of all tasks with probability P, else the negative ones. The paper puts this layer behind
    the shared trunk, on the gradients to its activations, multiplied by the activations' signs and summed over the
    batch; here, where activations are not known, it acts on the gradients to the shared parameters.

    Shared parameters: those whose elements are dropped.
    Weights: 1 each, reported only: the gradient is no weighted sum of the tasks'. For one task it is that task's.
    Cost: one forward and T backward passes, memory for T gradients and the draws. No state; the draws depend on the
    step's key alone.

    Args:
        leak: share of what would be dropped that is kept; 0 in the paper's algorithm, which has one a task. 1 is the
            plain sum.
    """
    if not 0 <= leak <= 1:
        raise ValueError(f"leak is {leak}; it must be between 0 and 1")

    def init(num_tasks: int, shared: Tree) -> State:
        return ()

    def update(state: State, signals: Signals) -> tuple[Decision, State]:
        leaves, structure = jax.tree.flatten(signals.jacobian)
        sizes = [leaf[0].size for leaf in leaves]
        draws = jax.random.uniform(signals.key, (sum(sizes),))  # in one go: a draw a leaf is many times the operations
        ends = itertools.accumulate(sizes)
        dropped = [
            _drop(leaf, draws[end - size : end].reshape(leaf.shape[1:]), leak)
            for leaf, size, end in zip(leaves, sizes, ends, strict=True)
        ]
        return Decision(jnp.ones_like(signals.losses), jax.tree.unflatten(structure, dropped)), state

    return Balancer(init, update, "jacobian")


def _drop(gradients: jax.Array, draws: jax.Array, leak: float) -> jax.Array:
    """`[T, ...] -> [...]`, by a number from [0, 1) for each element."""
    wide = gradients.astype(jnp.promote_types(gradients.dtype, jnp.float32))
    # Task by task, which fuses with the rest; XLA reduces a leading axis fifty times as slowly on CPUs.
    positive, negative = (
        functools.reduce(jnp.add, (part(row, 0) for row in wide)) for part in (jnp.maximum, jnp.minimum)
    )
    size = positive - negative
    purity = jnp.where(size > 0, positive / jnp.where(size > 0, size, 1), 0.5)
    kept = jnp.where(draws < purity, positive, negative)
    return (leak * (positive + negative) + (1 - leak) * kept).astype(gradients.dtype)
