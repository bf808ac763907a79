"""Gradients pulled together towards the cosines they usually have."""

import jax
import jax.numpy as jnp

from mtl_jax.balancing.core import Balancer, Decision, Signals, State, Tree
from mtl_jax.balancing.pcgrad import partners
from mtl_jax.balancing.registry import register

# No finite multiple of one gradient gives another a cosine of 1 with it, and what comes close to that is enormous.
_LARGEST_TARGET = 0.999


@register
def gradvac(*, beta: float = 0.5) -> Balancer:
    """Gradient vaccine (Wang et al., ICLR 2021, arXiv 2010.05874, sec. 3, eq. 2 and 3, algorithm 1).

    As PCGrad, one other task after the other in random order, but where the cosine φ between p_i (at first g_i) and
    g_j lies below a target φ*_ij, p_i is turned until it has that cosine:

        p_i <- p_i + |p_i| (φ* sqrt(1 - φ²) - φ sqrt(1 - φ*²)) / (|g_j| sqrt(1 - φ*²)) g_j
        φ*_ij <- (1 - beta) φ*_ij + beta φ        (in any case; 0 at first, when the method is PCGrad)

    and gradient = sum of p_i. The p_i are linear combinations of the original gradients, so the Gramian suffices.
    Targets are cut at 0.999. A pair with a zero gradient, or whose p_i is zero, is left as it is, its target too.

    Shared parameters: those the cosines run over, all at once (the paper's granularity "whole model"; its other
    granularities would be one balancer for each part).
    Weights: at least 1 each, and 1 each where no cosine lies below its target, as for one task; no fixed sum.
    Cost: one forward and T backward passes, memory for T gradients; O(T³) beside them. The state holds the targets
    `[T, T]`. The orders depend on the step's key alone.

    Args:
        beta: of the moving average of cosines; 0.5 as in the library LibMTL.
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"beta is {beta}; it must be between 0 and 1")

    def init(num_tasks: int, shared: Tree) -> State:
        return {"targets": jnp.zeros((num_tasks, num_tasks))}

    def update(state: State, signals: Signals) -> tuple[Decision, State]:
        products = signals.gramian
        lengths = jnp.sqrt(jnp.diagonal(products))
        # p_i of opposite gradients is rounding error of g_i, with a random cosine.
        noise = (10 * jnp.finfo(products.dtype).eps) ** 0.5 * lengths

        def turn(carry: tuple[jax.Array, jax.Array], other: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
            combinations, targets = carry
            dots = jnp.matmul(combinations, products, precision="highest")
            own = jnp.sqrt(jnp.maximum(jnp.sum(dots * combinations, axis=1), 0))  # |p_i|
            theirs = jnp.sum(other * lengths[None], axis=1)  # |g_j|
            defined = (own > noise) & (theirs > 0)
            own, theirs = jnp.where(defined, own, 1), jnp.where(defined, theirs, 1)
            cosine = jnp.clip(jnp.sum(dots * other, axis=1) / own / theirs, -1, 1)
            target = jnp.sum(targets * other, axis=1)

            aim = jnp.clip(target, -_LARGEST_TARGET, _LARGEST_TARGET)
            share = own / theirs * (aim * jnp.sqrt(1 - cosine**2) / jnp.sqrt(1 - aim**2) - cosine)
            step = jnp.where(defined & (cosine < aim), share, 0)
            change = jnp.where(defined, beta * (cosine - target), 0)
            return (combinations + step[:, None] * other, targets + change[:, None] * other), None

        originals = jnp.eye(len(products), dtype=products.dtype)  # p_i = Jᵀ (row i)
        orders = partners(signals.key, len(products)).astype(products.dtype)
        targets = state["targets"].astype(products.dtype)
        (combinations, targets), _ = jax.lax.scan(turn, (originals, targets), orders)
        return Decision(jnp.sum(combinations, axis=0)), {"targets": targets.astype(state["targets"].dtype)}

    return Balancer(init, update, "gramian")
