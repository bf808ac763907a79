"""Dynamic task prioritisation: more weight for the tasks that perform worse."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mtl_jax.balancing.core import Balancer, Decision, Signals, State, Tree
from mtl_jax.balancing.labelled import labelled
from mtl_jax.balancing.registry import register

_SMALLEST = 1e-6  # least value of a performance indicator and of its distance from 1; bounds the weight by 14


def likelihood(losses: jax.Array) -> jax.Array:
    """Computes exp(-L). For a cross entropy it is the geometric mean of the predicted probabilities of the labels."""
    return jnp.exp(-losses)


@register
def dtp(*, gamma: float = 2.0, alpha: float = 0.1, kpi: Callable[[jax.Array], jax.Array] = likelihood) -> Balancer:
    """Returns dynamic task prioritisation (Guo et al., ECCV 2018, "Task-level prioritization").

        w_t = -(1 - k_t)^gamma log k_t,    k_t <- alpha kpi_t + (1 - alpha) k_t

    The performance indicator kpi_t in (0, 1) measures how well task t performs. Its moving average k_t begins with the
    first kpi_t. The paper uses an accuracy or an average precision. A balancing method sees only losses, so the default
    is kpi = exp(-L), the probability in the focal loss of one sample. It suits losses of the order of 1. For losses of
    another order pass a function such as

        dtp(kpi=lambda losses: jnp.exp(-losses / jnp.array([1.0, 0.2])))

    Indicators are clipped to [1e-6, 1 - 1e-6]. The k_t of a task without labels in the batch, whose loss is exactly 0,
    does not change. The weight of a task is 0 until the first batch that has labels of it.

    Shared parameters: any choice gives the same step, because all parameters follow the weighted sum.
    Weights: no fixed sum, not even for a single task; a task that performs well has a weight close to 0.
    Cost: one forward and one backward pass; the state holds k `[T]`.

    Args:
        gamma: Exponent of the focal weight; 2 as in the focal loss (arXiv 1708.02002). The paper has one for each task.
        alpha: Weight of the newest indicator in the moving average. The default 0.1, about ten steps, is not from the
            paper.
        kpi: Function from the losses `[T]` to the performance indicators `[T]`.
    """
    if gamma < 0:
        raise ValueError(f"gamma is {gamma}; it must be at least 0")
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha is {alpha}; it must be above 0 and at most 1")

    def init(num_tasks: int, shared: Tree) -> State:
        return {"kpi": jnp.zeros(num_tasks), "started": jnp.zeros(num_tasks, bool)}

    def update(state: State, signals: Signals) -> tuple[Decision, State]:
        old, started, among = state["kpi"], state["started"], labelled(signals.losses)
        new = jnp.clip(kpi(signals.losses).astype(old.dtype), _SMALLEST, 1 - _SMALLEST)
        mean = jnp.where(among, jnp.where(started, alpha * new + (1 - alpha) * old, new), old)
        started = started | among
        weights = jnp.where(started, -((1 - mean) ** gamma) * jnp.log(jnp.where(started, mean, 1)), 0)
        return Decision(weights), {"kpi": mean, "started": started}

    return Balancer(init, update)
