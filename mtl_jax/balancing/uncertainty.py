"""Weights from the learned homoscedastic uncertainty of the tasks."""

import jax.numpy as jnp
import optax

from mtl_jax.balancing.core import Balancer, Decision, Signals, State, Tree
from mtl_jax.balancing.labelled import labelled
from mtl_jax.balancing.registry import register

# Bound of the learned log-variances. It permits weights between 2e-9 and 5e8, which no realistic run reaches. Without a
# bound the weight of a loss that stays close to 0 would grow until it overflows.
_BOUND = 20.0


@register
def uncertainty(*, regularizer: float = 0.5, learning_rate: float = 1e-3) -> Balancer:
    """Returns uncertainty weighting (Kendall et al., arXiv 1705.07115, sec. 3.2, eq. 7 and 10).

    The model and the learned log-variances s_t = log σ_t² of the tasks minimise the sum over t of

        exp(-s_t) L_t + r s_t,    with weights w_t = exp(-s_t) and d/ds_t = r - exp(-s_t) L_t.

    With r = 1/2 this is the objective of the paper if every loss is a negative log-likelihood of unit scale: a cross
    entropy (eq. 10), or *half* the squared error of a regression (eq. 7). A Laplace likelihood, i.e. an L1 loss, has
    r = 1. At the minimum w_t = r / L_t, so r sets only the common scale of the weights.

    Shared parameters: any choice gives the same step, because all parameters follow the weighted sum.
    Weights: 1 each at the first step; no fixed sum. Negative losses drive s_t to its bound of -20. The s_t of a task
    without labels in the batch, whose loss is exactly 0, does not change.
    Cost: one forward and one backward pass; the state holds s `[T]` and its two moments for Adam.

    Args:
        regularizer: The factor r; 1/2 in the paper.
        learning_rate: Learning rate of Adam for s; the default 1e-3 is the usual one of Adam. The paper learns s with
            the optimiser of the model: pass the learning rate of the model to follow it.
    """
    if learning_rate <= 0:
        raise ValueError(f"learning_rate is {learning_rate}; it must be positive")
    optimizer = optax.adam(learning_rate)

    def init(num_tasks: int, shared: Tree) -> State:
        log_variances = jnp.zeros(num_tasks)
        return {"log_variances": log_variances, "adam": optimizer.init(log_variances)}

    def update(state: State, signals: Signals) -> tuple[Decision, State]:
        log_variances = state["log_variances"]
        weights = jnp.exp(-log_variances)
        among = labelled(signals.losses)
        gradient = jnp.where(among, regularizer - weights * signals.losses.astype(weights.dtype), 0)
        step, adam = optimizer.update(gradient, state["adam"])
        moved = jnp.clip(optax.apply_updates(log_variances, step), -_BOUND, _BOUND)
        return Decision(weights), {"log_variances": jnp.where(among, moved, log_variances), "adam": adam}

    return Balancer(init, update)
