"""Methods whose weights are a function of what this step shows, and of nothing before it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mtl_jax.balancing.core import Balancer, Decision, Signals, State


def from_gramian(weigh: Callable[[Signals], jax.Array]) -> Balancer:
    """A method without state from a function of the Gramian (and the losses) that gives the weights `[T]`.

    A single task has weight 1 with every method, also where its formula, made for several, scales the gradient.
    """

    def update(state: State, signals: Signals) -> tuple[Decision, State]:
        single = len(signals.gramian) == 1
        return Decision(jnp.ones(1, signals.gramian.dtype) if single else weigh(signals)), state

    return Balancer(lambda tasks, shared: (), update, needs="gramian")
