"""GradNorm: weights that learn to give every task its share of the gradient."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_jax.balancing.core import Balancer, Decision, Signals, Tree
from mtl_jax.balancing.registry import register
from mtl_jax.balancing.solvers import take_apart


class GradNormState(NamedTuple):
    """State of GradNorm.

    Attributes:
        weights: Weights `[T]` of the next step.
        initial: First positive loss `[T]` of each task; 0 until there is one.
        optimizer: State of the optimiser of the weights.
    """

    weights: jax.Array
    initial: jax.Array
    optimizer: optax.OptState


@register
def gradnorm(*, alpha: float = 1.5, learning_rate: float = 0.025) -> Balancer:
    """Returns GradNorm (Chen et al., arXiv 1711.02257, sec. 3, eq. 1 and 2, alg. 1).

    The weights descend on the sum over t of |w_t n_t - mean(w n) r_t^alpha|. Here n_t is the norm of gradient t, and
    r_t is the ratio of the loss to its first value, divided by the mean of these ratios. The second term counts as
    constant, so the derivative with respect to w_t is n_t times the sign of the difference. After each update the
    weights are scaled to sum to T. A step uses the weights learned from the steps before it; the first weights are 1.

    The derivatives are divided by mean(w n) and the optimiser of the weights is Adam, so their learning does not depend
    on the scale of the losses. No weight falls below 0. A task without gradient keeps its weight, up to the scaling,
    and enters none of the means. The ratios mean little for losses that start low by chance or that may be negative.
    A negative loss counts as 0.

    Shared parameters are those whose gradients form the Gramian, of which only the diagonal is used. The paper uses the
    last shared layer alone: to do so, make that layer the shared parameters of the loss function. The backward passes
    then stop there. Cost: one backward pass for each task, and memory for its gradient with respect to the shared
    parameters. The weights sum to T, and apply to the gradients with respect to the other parameters, too.

    Args:
        alpha: Strength of the pull towards equal rates of learning; 0 gives equal norms. The paper uses 1.5 for NYUv2
            and 0.12 for its toy problem.
        learning_rate: Learning rate of Adam for the weights. The default 0.025, a step of a fortieth of the first
            weight, is not from the paper.
    """
    if alpha < 0:
        raise ValueError(f"alpha is {alpha}; it must be at least 0")
    if learning_rate <= 0:
        raise ValueError(f"learning_rate is {learning_rate}; it must be positive")
    optimizer = optax.adam(learning_rate)

    def init(tasks: int, shared: Tree) -> GradNormState:
        weights = jnp.ones(tasks)
        return GradNormState(weights, jnp.zeros(tasks), optimizer.init(weights))

    def update(state: GradNormState, signals: Signals) -> tuple[Decision, GradNormState]:
        norms, _, present = take_apart(signals.gramian)
        dtype = norms.dtype
        weights, losses = state.weights.astype(dtype), signals.losses.astype(dtype)
        initial = jnp.where(state.initial > 0, state.initial, jnp.maximum(losses, 0))
        count = jnp.maximum(jnp.sum(present), 1)
        parts = jnp.where(present, weights * norms, 0)
        ratios = jnp.where(present & (initial > 0), jnp.maximum(losses, 0) / jnp.where(initial > 0, initial, 1), 0)
        mean = jnp.sum(ratios) / count
        rates = ratios / jnp.where(mean > 0, mean, 1)
        length = jnp.sum(parts) / count
        relative = jnp.where(present, norms, 0) / jnp.where(length > 0, length, 1)
        slope = relative * jnp.sign(parts - length * rates**alpha)
        updates, optimizer_state = optimizer.update(slope.astype(state.weights.dtype), state.optimizer)
        moved = jnp.where(present, jnp.maximum(optax.apply_updates(state.weights, updates), 0), state.weights)
        total = jnp.sum(moved)
        moved = jnp.where(total > 0, moved * (len(moved) / jnp.where(total > 0, total, 1)), 1)
        return Decision(weights, specific=weights), GradNormState(
            moved, initial.astype(state.initial.dtype), optimizer_state
        )

    return Balancer(init, update, needs="gramian")
