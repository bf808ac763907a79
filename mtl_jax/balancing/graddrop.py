"""GradDrop: elements of the gradients are dropped until those that are left have one sign."""

import functools
import itertools

import jax
import jax.numpy as jnp

from mtl_jax.balancing.core import Balancer, Decision, Signals, State, Tree
from mtl_jax.balancing.registry import register


@register
def graddrop(*, leak: float = 0.0) -> Balancer:
    """Returns gradient sign dropout (Chen et al., NeurIPS 2020, arXiv 2010.06808, sec. 3, algorithm 1).

    For each element, with the sign purity P = (1 + sum of g_t / sum of |g_t|) / 2 and U drawn uniformly from [0, 1),

        gradient = sum over t of (leak + (1 - leak) M_t) g_t,
        M_t = 1 where U < P and g_t > 0, or U >= P and g_t < 0; else 0

    i.e. the positive elements of all tasks are kept with probability P, and the negative ones otherwise. The paper puts
    this layer behind the shared trunk. There it acts on the gradients with respect to the activations, multiplied by
    the signs of the activations and summed over the batch. Activations are not known here, so the method acts on the
    gradients with respect to the shared parameters.

    Shared parameters: those whose gradients lose elements.
    Weights: 1 each; they are only reported, because the gradient is no weighted sum of the tasks' gradients. The
    gradient of a single task does not change.
    Cost: one forward and T backward passes, memory for T gradients and the random numbers. No state; the random numbers
    depend on the key of the step alone.

    Args:
        leak: Fraction of a dropped element that is kept. It is 0 in the paper's algorithm, which has one for each task.
            1 gives the plain sum.
    """
    if not 0 <= leak <= 1:
        raise ValueError(f"leak is {leak}; it must be between 0 and 1")

    def init(num_tasks: int, shared: Tree) -> State:
        return ()

    def update(state: State, signals: Signals) -> tuple[Decision, State]:
        leaves, structure = jax.tree.flatten(signals.jacobian)
        sizes = [leaf[0].size for leaf in leaves]
        draws = jax.random.uniform(signals.key, (sum(sizes),))  # one draw, because one for each leaf is much slower
        ends = itertools.accumulate(sizes)
        dropped = [
            _drop(leaf, draws[end - size : end].reshape(leaf.shape[1:]), leak)
            for leaf, size, end in zip(leaves, sizes, ends, strict=True)
        ]
        return Decision(jnp.ones_like(signals.losses), jax.tree.unflatten(structure, dropped)), state

    return Balancer(init, update, "jacobian")


def _drop(gradients: jax.Array, draws: jax.Array, leak: float) -> jax.Array:
    """Combines gradients `[T, ...]` into `[...]` by a random number from [0, 1) for each element."""
    wide = gradients.astype(jnp.promote_types(gradients.dtype, jnp.float32))
    # The sum over tasks fuses with the rest; on CPUs XLA takes fifty times as long to reduce a leading axis.
    positive, negative = (
        functools.reduce(jnp.add, (part(row, 0) for row in wide)) for part in (jnp.maximum, jnp.minimum)
    )
    size = positive - negative
    purity = jnp.where(size > 0, positive / jnp.where(size > 0, size, 1), 0.5)
    kept = jnp.where(draws < purity, positive, negative)
    return (leak * (positive + negative) + (1 - leak) * kept).astype(gradients.dtype)
