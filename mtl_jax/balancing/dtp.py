"""More weight to the tasks that perform worse."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mtl_jax.balancing.core import Balancer, Decision, Signals, State, Tree
from mtl_jax.balancing.labelled import labelled
from mtl_jax.balancing.registry import register

_SMALLEST = 1e-6  # of an indicator and of its distance from 1; the focal weight is then at most 14


def likelihood(losses: jax.Array) -> jax.Array:
    """exp(-L): for a cross entropy, the geometric mean of the probabilities that the right classes got."""
    return jnp.exp(-losses)


@register
def dtp(*, gamma: float = 2.0, alpha: float = 0.1, kpi: Callable[[jax.Array], jax.Array] = likelihood) -> Balancer:
    """Dynamic task prioritisation (Guo et al., ECCV 2018, "Task-level prioritization").

        w_t = -(1 - k_t)^gamma log k_t,    k_t <- alpha kpi_t + (1 - alpha) k_t

    where kpi_t in (0, 1) says how well task t does, and k_t begins at the first of them. The paper takes an accuracy or
    an average precision; a balancer sees losses only, so by default kpi = exp(-L), which is the quantity that stands in
    the focal loss for one sample. It suits losses of the order of 1; for others pass a function, as

        dtp(kpi=lambda losses: jnp.exp(-losses / jnp.array([1.0, 0.2])))

    Values are clipped to [1e-6, 1 - 1e-6]. A loss of exactly 0, that of a task without labels in the batch, is no
    success: its k_t stays, and its weight is 0 until there is one.

    Shared parameters: any choice gives the same step, because all parameters follow the weighted sum.
    Weights: no fixed sum, not even for one task: a task that does well has a weight close to 0.
    Cost: one forward and one backward pass; the state holds k `[T]`.

    Args:
        gamma: of the focal weight; 2 as in the focal loss (arXiv 1708.02002). The paper has one a task.
        alpha: weight of the newest value in the moving average; 0.1, about ten steps, is ours.
        kpi: (losses `[T]`) -> `[T]`.
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
