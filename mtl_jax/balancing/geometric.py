"""The geometric mean of the losses."""

import jax.numpy as jnp

from mtl_jax.balancing.core import Balancer, Decision, Signals, State, Tree
from mtl_jax.balancing.labelled import labelled
from mtl_jax.balancing.registry import register

_SMALLEST = 1e-8  # the logarithm of a smaller loss has no useful gradient


@register
def geometric() -> Balancer:
    """Geometric loss strategy, GLS (Chennupati et al., MultiNet++, arXiv 1904.08492).

    Descends on L = (product of L_t)^(1/T), whose gradient weighs the tasks with w_t = L / (T L_t): every loss counts by
    its relative change, whatever its unit. A loss of exactly 0, that of a task without labels in the batch, is left
    out: its weight is 0, and the mean that of the others. Any other below 1e-8, negative ones included, counts as 1e-8.

    Shared parameters: any choice gives the same step, because all parameters follow the weighted sum.
    Weights: no fixed sum; the w_t L_t sum to L. For one task w = 1.
    Cost: one forward and one backward pass; no state.
    """

    def init(num_tasks: int, shared: Tree) -> State:
        return ()

    def update(state: State, signals: Signals) -> tuple[Decision, State]:
        among = labelled(signals.losses)
        count = jnp.maximum(jnp.sum(among), 1).astype(signals.losses.dtype)
        logs = jnp.where(among, jnp.log(jnp.maximum(signals.losses, _SMALLEST)), 0)
        # The logarithm as a whole: the quotient of two small losses may lie outside the range of either.
        return Decision(jnp.where(among, jnp.exp(jnp.sum(logs) / count - logs) / count, 0)), state

    return Balancer(init, update)
