"""Homoscedastic uncertainty as the scale of a loss."""

import jax.numpy as jnp
import optax

from mtl_jax.balancing.core import Balancer, Decision, Signals, State, Tree
from mtl_jax.balancing.labelled import labelled
from mtl_jax.balancing.registry import register

# Of the learned log-variances: weights between 2e-9 and 5e8, which no run in earnest reaches. Without a bound the
# weight of a loss that stays next to 0 would grow until it overflows.
_BOUND = 20.0


@register
def uncertainty(*, regularizer: float = 0.5, learning_rate: float = 1e-3) -> Balancer:
    """Learns the tasks' noise (Kendall et al., arXiv 1705.07115, sec. 3.2, eq. 7 and 10).

    The model and the log-variances s_t = log σ_t² minimise the sum over t of

        exp(-s_t) L_t + r s_t,    with weights w_t = exp(-s_t) and d/ds_t = r - exp(-s_t) L_t.

    With r = 1/2 this is the paper's objective where every loss is a negative log-likelihood at unit scale: cross
    entropy as it is (eq. 10), and *half* the squared error for a regression (eq. 7). A Laplace likelihood, i.e. an L1
    loss as it is, has r = 1. In balance w_t = r / L_t, so r sets the common scale of the weights and no more.

    Shared parameters: any choice gives the same step, because all parameters follow the weighted sum.
    Weights: 1 each at first, no fixed sum. Negative losses drive s_t to its bound of -20. A loss of
    exactly 0, that of a task without labels in the batch, leaves s_t as it is.
    Cost: one forward and one backward pass; the state holds s `[T]` and Adam's two moments of it.

    Args:
        regularizer: r; the paper's 1/2.
        learning_rate: of Adam for s. The paper learns s with the model's own optimiser: give its rate. 1e-3 is Adam's.
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
