"""Logarithms of the losses, and gradients of one length."""

import jax
import jax.numpy as jnp

from mtl_jax.balancing.core import Balancer, Decision, Signals, State, Tree, combine, gramian
from mtl_jax.balancing.labelled import labelled
from mtl_jax.balancing.registry import register

_SMALLEST = 1e-8  # added to a loss before its logarithm, as in the paper


@register
def db_mtl(*, beta: float = 0.9, sigma: float = 0.0) -> Balancer:
    """Dual-balancing (Lin et al., arXiv 2308.12029, sec. 3, algorithm 1).

    Gradients are those of log(L_t + 1e-8), smoothed over the steps k = 1, 2, ..., and all scaled to the length of the
    longest:

        u_t <- β_k u_t + (1 - β_k) ∇L_t / (L_t + 1e-8),    β_k = beta / k^sigma,    u_t = 0 at first
        gradient = sum over t of (max over i of |u_i|) / |u_t| u_t

    A task whose u_t is zero adds nothing; a negative loss counts as 1e-8 here, one of exactly 0 as without gradient.

    Shared parameters: those the gradients' lengths are taken over; the paper takes the whole shared trunk, and trains
    the other parameters with the logarithms' gradients too.
    Weights: (1 - β_k) max |u_i| / |u_t| / (L_t + 1e-8), of the present gradients; reported only, because the sum also
    has the past ones. No fixed sum. For one task the gradient is u.
    Cost: one forward and T backward passes; memory for T gradients and, in the state, for T more: the u_t,
    in float32 at least.

    Args:
        beta: forgetting rate, below 1; 0.9 in LibMTL's repository. 0 does without the moving average.
        sigma: how fast it decays; 0 there.
    """
    if sigma < 0:
        raise ValueError(f"sigma is {sigma}; it must be at least 0")
    if not 0 <= beta < 1:
        raise ValueError(f"beta is {beta}; it must be at least 0 and below 1")

    def init(num_tasks: int, shared: Tree) -> State:
        def zeros(leaf: jax.Array) -> jax.Array:
            return jnp.zeros((num_tasks, *leaf.shape), jnp.promote_types(leaf.dtype, jnp.float32))

        return {"average": jax.tree.map(zeros, shared), "step": jnp.zeros((), jnp.int32)}

    def update(state: State, signals: Signals) -> tuple[Decision, State]:
        step = state["step"] + 1
        old_share = beta / step.astype(signals.losses.dtype) ** sigma
        losses = signals.losses
        slopes = jnp.where(labelled(losses), 1 / (jnp.maximum(losses, 0) + _SMALLEST), 0)  # of the logarithms
        new_share = (1 - old_share) * slopes

        def smooth(old: jax.Array, new: jax.Array) -> jax.Array:
            rows = new_share.reshape(-1, *(1,) * (new.ndim - 1))
            return (old_share * old + rows * new).astype(old.dtype)

        average = jax.tree.map(smooth, state["average"], signals.jacobian)
        lengths = jnp.sqrt(jnp.diagonal(gramian(average)))
        scales = jnp.where(lengths > 0, jnp.max(lengths) / jnp.where(lengths > 0, lengths, 1), 0)
        gradient = jax.tree.map(lambda sums, new: sums.astype(new.dtype), combine(average, scales), signals.jacobian)
        decision = Decision(scales.astype(new_share.dtype) * new_share, gradient, slopes)
        return decision, {"average": average, "step": step}

    return Balancer(init, update, "jacobian")
