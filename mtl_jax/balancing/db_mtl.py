"""DB-MTL: logarithms of the losses, and gradients scaled to one length."""

import jax
import jax.numpy as jnp

from mtl_jax.balancing.core import Balancer, Decision, Signals, State, Tree, combine, gramian
from mtl_jax.balancing.labelled import labelled
from mtl_jax.balancing.registry import register

_SMALLEST = 1e-8  # added to a loss in its logarithm, as in the paper


@register
def db_mtl(*, beta: float = 0.9, sigma: float = 0.0) -> Balancer:
    """Returns dual-balancing, DB-MTL (Lin et al., arXiv 2308.12029, sec. 3, algorithm 1).

    The gradients of log(L_t + 1e-8) are smoothed over the steps k = 1, 2, ..., and scaled to the length of the longest
    one:

        u_t <- β_k u_t + (1 - β_k) ∇L_t / (L_t + 1e-8),    β_k = beta / k^sigma,    u_t = 0 at first
        gradient = sum over t of (max over i of |u_i|) / |u_t| u_t

    A task whose u_t is zero adds nothing. A negative loss counts as 0, so that 1e-8 is the divisor. A task whose loss
    is exactly 0 counts as a task without gradient.

    Shared parameters: those over which the lengths of the gradients are computed. The paper uses the whole shared
    trunk, and trains the other parameters with the gradients of the logarithms, too.
    Weights: (1 - β_k) max |u_i| / |u_t| / (L_t + 1e-8), the weights of the current gradients. They are only reported,
    because the combined gradient also contains past ones. No fixed sum. The gradient of a single task is u.
    Cost: one forward and T backward passes; memory for T gradients, and for the u_t in the state, which are T more
    gradients in at least float32.

    Args:
        beta: Weight of the past in the moving average, below 1; 0.9 in LibMTL's repository. 0 switches the moving
            average off.
        sigma: Exponent of the decay of this weight; 0 in LibMTL's repository.
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
        # Derivatives of the logarithms with respect to the losses.
        slopes = jnp.where(labelled(losses), 1 / (jnp.maximum(losses, 0) + _SMALLEST), 0)
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
