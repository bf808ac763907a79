"""The geometric mean of the losses."""

import jax.numpy as jnp

from mtl_jax.balancing.core import Balancer, Decision, Signals, State, Tree

_SMALLEST = 1e-8  # the logarithm of a smaller loss has no useful gradient


def geometric() -> Balancer:
    """Geometric loss strategy, GLS (Chennupati et al., MultiNet++, arXiv 1904.08492).

    Descends on L = (product of L_t)^(1/T), whose gradient weighs the tasks with w_t = L / (T L_t): every loss counts by
    its relative change, whatever its unit. A loss below 1e-8, zero and negative ones included, has no geometric mean:
    it counts as 1e-8.

    Shared parameters: any choice gives the same step, because all parameters follow the weighted sum.
    Weights: no fixed sum; the w_t L_t sum to L. For one task w = 1.
    Cost: one forward and one backward pass; no state.
    """

    def init(num_tasks: int, shared: Tree) -> State:
        return ()

    def update(state: State, signals: Signals) -> tuple[Decision, State]:
        logs = jnp.log(jnp.maximum(signals.losses, _SMALLEST))
        # The logarithm as a whole: the quotient of two small losses may lie outside the range of either.
        return Decision(jnp.exp(jnp.mean(logs) - logs) / logs.size), state

    return Balancer(init, update)
