"""A smooth form of the largest weighted loss."""

from collections.abc import Sequence

import jax.numpy as jnp

from mtl_jax.balancing.core import Balancer, Decision, Signals, State, Tree, check_values
from mtl_jax.balancing.labelled import labelled, softmax
from mtl_jax.balancing.registry import register

_SMALLEST = 1e-12  # smaller losses count as this before the logarithm


@register
def stch(
    *,
    mu: float = 1.0,
    preference: Sequence[float] | None = None,
    ideal: Sequence[float] | None = None,
    warm_up: int = 0,
) -> Balancer:
    """Smooth Tchebycheff scalarisation (Lin et al., ICML 2024, arXiv 2402.19078, sec. 3, eq. 9).

    Descends on mu log(sum over t of exp(λ_t (L_t - z_t) / mu)), which tends to max over t of λ_t (L_t - z_t) as mu
    tends to 0. Its gradient weighs the tasks with

        w_t = λ_t softmax(λ (L - z) / mu)_t.

    It compares the losses' values, which have to be of a common unit. With `warm_up` it compares log(L_t / m_t) in
    place of L_t - z_t, m_t being the mean of L_t over the first `warm_up` steps; these steps descend on the sum over t
    of λ_t log L_t. The weights are then divided by L_t. That is not in eq. 9 but in the authors' code for networks,
    where m_t is from the warm-up's end and the λ_t are 1; with λ_t = 1 / T their mu is mu / T here.

    A loss of exactly 0, that of a task without labels in the batch, is left out: its weight is 0, and the softmax and
    m_t are over the others. One that the warm-up did not see counts as unchanged, m_t = L_t.

    Shared parameters: any choice gives the same step, because all parameters follow the weighted sum.
    Weights: without warm-up the w_t / λ_t sum to 1, hence the weights to 1 / T for equal preferences of 1 / T, and to 1
    for preferences of 1. For one task w = λ; with warm-up λ / L.
    Cost: one forward and one backward pass; the state holds, for the warm-up, `[T]` sums and their counts.

    Args:
        mu: the larger, the smoother; 1 in LibMTL's repository. To be tuned to the losses' scale times λ.
        preference: λ, positive, one a task; 1 / T each by default, as in the paper's simplex.
        ideal: z, the losses' lower bounds, one a task; 0 each by default. Not together with `warm_up`.
        warm_up: steps whose losses are averaged; 0 compares the losses as they are. The losses have to be positive.
    """
    if mu <= 0:
        raise ValueError(f"mu is {mu}; it must be positive")
    if preference is not None and min(preference) <= 0:
        raise ValueError(f"preference is {tuple(preference)}; all must be positive")
    if warm_up < 0:
        raise ValueError(f"warm_up is {warm_up}; it must be a number of steps, or 0")
    if warm_up and ideal is not None:
        raise ValueError(f"ideal is {tuple(ideal)} and warm_up {warm_up}; one of them must be left out")

    def init(num_tasks: int, shared: Tree) -> State:
        check_values("preference", preference, num_tasks)
        check_values("ideal", ideal, num_tasks)
        zeros = jnp.zeros(num_tasks)
        return {"sum": zeros, "count": zeros, "step": jnp.zeros((), jnp.int32)} if warm_up else ()

    def update(state: State, signals: Signals) -> tuple[Decision, State]:
        losses, among = signals.losses, labelled(signals.losses)
        scale = jnp.full_like(losses, 1 / losses.size) if preference is None else jnp.asarray(preference, losses.dtype)
        if not warm_up:
            origin = jnp.zeros_like(losses) if ideal is None else jnp.asarray(ideal, losses.dtype)
            return Decision(scale * softmax(scale * (losses - origin) / mu, among)), state
        positive = jnp.maximum(losses, _SMALLEST)
        warm = state["step"] >= warm_up
        means = jnp.where(state["count"] > 0, state["sum"] / jnp.maximum(state["count"], 1), positive)
        ratios = positive / jnp.maximum(means, _SMALLEST).astype(losses.dtype)
        shares = jnp.where(warm, softmax(scale * jnp.log(ratios) / mu, among), among)
        total = jnp.where(warm, state["sum"], state["sum"] + losses.astype(state["sum"].dtype))
        count = jnp.where(warm, state["count"], state["count"] + among)
        return Decision(scale * shares / positive), {"sum": total, "count": count, "step": state["step"] + 1}

    return Balancer(init, update)
