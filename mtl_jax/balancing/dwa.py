"""Dynamic weight average: weights from the rates at which the losses fall."""

import jax
import jax.numpy as jnp

from mtl_jax.balancing.core import Balancer, Decision, Signals, State, Tree
from mtl_jax.balancing.labelled import labelled
from mtl_jax.balancing.registry import register

_SMALLEST = 1e-12  # the ratio to a smaller mean is not meaningful


@register
def dwa(*, temperature: float = 2.0, window: int = 100) -> Balancer:
    """Returns dynamic weight average (Liu et al., arXiv 1803.10704, sec. 4.1, eq. 7).

        w_t = T softmax(r / temperature)_t,    r_t = mean of L_t over the last window / mean over the window before it

    A window is an epoch in the paper. As in the paper, all weights are 1 until two windows are complete. A task whose
    earlier mean is not positive has r_t = 1. A loss of exactly 0, that of a task without labels in the batch, does not
    enter the mean. A window with only such losses keeps the mean of the window before it.

    Shared parameters: any choice gives the same step, because all parameters follow the weighted sum.
    Weights: sum to T.
    Cost: one forward and one backward pass; the state holds four arrays `[T]` and the step.

    Args:
        temperature: Temperature of the softmax; 2 in the paper. A larger one gives more equal weights.
        window: Number of steps over which the losses are averaged. The paper uses the steps of an epoch: pass that
            number to follow it. The default of 100 is not from the paper.
    """
    if temperature <= 0 or window < 1:
        raise ValueError(f"temperature is {temperature}, window {window}; they must be positive")

    def init(num_tasks: int, shared: Tree) -> State:
        zeros = jnp.zeros(num_tasks)
        return {"sum": zeros, "count": zeros, "last": zeros, "before": zeros, "step": jnp.zeros((), jnp.int32)}

    def update(state: State, signals: Signals) -> tuple[Decision, State]:
        last, before, step = state["last"], state["before"], state["step"]
        known = (step >= 2 * window) & (before > _SMALLEST)
        ratios = jnp.where(known, last / jnp.where(known, before, 1), 1)
        weights = last.size * jax.nn.softmax(ratios / temperature)

        total = state["sum"] + signals.losses.astype(last.dtype)
        count = state["count"] + labelled(signals.losses)
        mean = jnp.where(count > 0, total / jnp.maximum(count, 1), last)
        step = step + 1
        complete = step % window == 0
        return Decision(weights), {
            "sum": jnp.where(complete, 0, total),
            "count": jnp.where(complete, 0, count),
            "last": jnp.where(complete, mean, last),
            "before": jnp.where(complete, last, before),
            "step": step,
        }

    return Balancer(init, update)
