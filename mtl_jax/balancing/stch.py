"""Smooth Tchebycheff scalarisation: descent on a smooth maximum of the weighted losses."""

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
    """Returns smooth Tchebycheff scalarisation, STCH (Lin et al., ICML 2024, arXiv 2402.19078, sec. 3, eq. 9).

    It descends on mu log(sum over t of exp(λ_t (L_t - z_t) / mu)), which tends to max over t of λ_t (L_t - z_t) as mu
    tends to 0. The gradient of this function gives the weights

        w_t = λ_t softmax(λ (L - z) / mu)_t.

    The method compares the values of the losses, so these must have a common unit. With `warm_up` it compares
    log(L_t / m_t) instead of L_t - z_t, where m_t is the mean of L_t over the first `warm_up` steps, and the weights
    are divided by L_t. The steps of the warm-up descend on the sum over t of λ_t log L_t. This variant is not in eq. 9
    but in the authors' code for networks. There, m_t is taken at the end of the warm-up, and the λ_t are 1; with
    λ_t = 1 / T here, their mu corresponds to mu / T.

    A task without labels in the batch, whose loss is exactly 0, has weight 0 and enters neither the softmax nor m_t. A
    task that had no labels during the whole warm-up has m_t = L_t.

    Shared parameters: any choice gives the same step, because all parameters follow the weighted sum.
    Weights: without warm-up the w_t / λ_t sum to 1. Hence the weights sum to 1 / T for equal preferences of 1 / T, and
    to 1 for preferences of 1. A single task has weight λ, or λ / L with warm-up.
    Cost: one forward and one backward pass; with warm-up the state holds sums and counts of the losses, both `[T]`.

    Args:
        mu: Smoothness of the maximum; 1 in LibMTL's repository. It should be tuned to the scale of λ_t L_t.
        preference: The positive preferences λ, one for each task. None means 1 / T each, as in the paper's simplex.
        ideal: The lower bounds z of the losses, one for each task. None means 0 each. Not permitted with `warm_up`.
        warm_up: Number of steps over which the losses are averaged; these losses must be positive. 0 compares the
            losses themselves.
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
