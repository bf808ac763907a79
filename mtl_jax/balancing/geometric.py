"""The geometric mean of the losses."""

import jax.numpy as jnp

from mtl_jax.balancing.core import Balancer, Decision, Signals, State, Tree
from mtl_jax.balancing.labelled import labelled
from mtl_jax.balancing.registry import register

_SMALLEST = 1e-8  # smaller losses count as this, because the gradient of their logarithm is not useful


@register
def geometric() -> Balancer:
    """Returns the geometric loss strategy, GLS (Chennupati et al., MultiNet++, arXiv 1904.08492).

    It descends on L = (product of L_t)^(1/T), whose gradient gives the weights w_t = L / (T L_t). Only relative changes
    of the losses matter, so their units do not. A task without labels in the batch, whose loss is exactly 0, has weight
    0, and L is the mean of the other losses. Any other loss below 1e-8, negative ones included, counts as 1e-8.

    Shared parameters: any choice gives the same step, because all parameters follow the weighted sum.
    Weights: no fixed sum; the w_t L_t sum to L. A single task has weight 1.
    Cost: one forward and one backward pass; no state.
    """

    def init(num_tasks: int, shared: Tree) -> State:
        return ()

    def update(state: State, signals: Signals) -> tuple[Decision, State]:
        among = labelled(signals.losses)
        count = jnp.maximum(jnp.sum(among), 1).astype(signals.losses.dtype)
        logs = jnp.where(among, jnp.log(jnp.maximum(signals.losses, _SMALLEST)), 0)
        # Computed from one logarithm, because the quotient of two small losses may over- or underflow.
        return Decision(jnp.where(among, jnp.exp(jnp.sum(logs) / count - logs) / count, 0)), state

    return Balancer(init, update)
