"""Constant weights, the baseline of every comparison."""

from collections.abc import Sequence

import jax.numpy as jnp

from mtl_jax.balancing.core import Balancer, Decision, Signals, State, Tree, check_values
from mtl_jax.balancing.registry import register


@register
def fixed(*, weights: Sequence[float] | None = None) -> Balancer:
    """Returns the method of constant weights (arXiv 2004.13379, sec. 3): descent on the sum over t of w_t L_t.

    Shared parameters: any choice gives the same step, because all parameters follow the weighted sum.
    Weights: the sum of the given weights; T by default.
    Cost: one forward and one backward pass; no state.

    Args:
        weights: Weights of the tasks, in the order of the tasks. None means 1 for each.
    """

    def init(num_tasks: int, shared: Tree) -> State:
        check_values("weights", weights, num_tasks)
        return ()

    def update(state: State, signals: Signals) -> tuple[Decision, State]:
        ones = jnp.ones_like(signals.losses)
        return Decision(ones if weights is None else jnp.asarray(weights, ones.dtype)), state

    return Balancer(init, update)
