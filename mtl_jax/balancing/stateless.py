"""Methods without a state: their weights depend on the current step alone."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mtl_jax.balancing.core import Balancer, Decision, Signals, State


def from_gramian(weigh: Callable[[Signals], jax.Array]) -> Balancer:
    """Creates a method without a state from a function of the Gramian and the losses.

    A single task always has weight 1, even if the formula of the method would scale its gradient.

    Args:
        weigh: Function from the signals of a step to the weights `[T]` of the tasks.
    """

    def update(state: State, signals: Signals) -> tuple[Decision, State]:
        single = len(signals.gramian) == 1
        return Decision(jnp.ones(1, signals.gramian.dtype) if single else weigh(signals)), state

    return Balancer(lambda tasks, shared: (), update, needs="gramian")
