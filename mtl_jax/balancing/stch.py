"""A smooth form of the largest weighted loss."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mtl_jax.balancing.core import Balancer, Decision, Signals, State, Tree


def stch(
    *, mu: float = 1.0, preference: Sequence[float] | None = None, ideal: Sequence[float] | None = None
) -> Balancer:
    """Smooth Tchebycheff scalarisation (Lin et al., ICML 2024, arXiv 2402.19078, sec. 3).

    Descends on mu log(sum over t of exp(λ_t (L_t - z_t) / mu)), which tends to max over t of λ_t (L_t - z_t) as mu
    tends to 0. Its gradient weighs the tasks with

        w_t = λ_t softmax(λ (L - z) / mu)_t.

    It compares the losses' values: bring them to a common unit first. (The paper's experiments with networks do so by
    logarithms of the losses over their means in the first epochs; a loss function may return just that.)

    Shared parameters: any choice gives the same step, because all parameters follow the weighted sum.
    Weights: the w_t / λ_t sum to 1, hence the weights to 1 / T for equal preferences of 1 / T, and to 1 for preferences
    of 1. For one task w = 1.
    Cost: one forward and one backward pass; no state.

    Args:
        mu: the larger, the smoother; 1 in the library LibMTL. To be tuned to the losses' scale times λ.
        preference: λ, positive, one a task; 1 / T each by default, as in the paper's simplex.
        ideal: z, the losses' lower bounds, one a task; 0 each by default.
    """
    if mu <= 0:
        raise ValueError(f"mu is {mu}; it must be positive")
    if preference is not None and min(preference) <= 0:
        raise ValueError(f"preference is {tuple(preference)}; all must be positive")

    def init(num_tasks: int, shared: Tree) -> State:
        for name, values in (("preference", preference), ("ideal", ideal)):
            if values is not None and len(values) != num_tasks:
                raise ValueError(f"{name} is {tuple(values)} for {num_tasks} tasks; give one value a task")
        return ()

    def update(state: State, signals: Signals) -> tuple[Decision, State]:
        losses = signals.losses
        scale = jnp.full_like(losses, 1 / losses.size) if preference is None else jnp.asarray(preference, losses.dtype)
        origin = jnp.zeros_like(losses) if ideal is None else jnp.asarray(ideal, losses.dtype)
        return Decision(scale * jax.nn.softmax(scale * (losses - origin) / mu)), state

    return Balancer(init, update)
