"""GradVac: gradients turned towards each other until they have their usual cosines."""

import jax
import jax.numpy as jnp

from mtl_jax.balancing.core import Balancer, Decision, Signals, State, Tree
from mtl_jax.balancing.pcgrad import partners
from mtl_jax.balancing.registry import register

# A cosine of 1 needs an infinite multiple of the other gradient, and a cosine close to 1 needs an enormous one.
_LARGEST_TARGET = 0.999


@register
def gradvac(*, beta: float = 0.5) -> Balancer:
    """Returns gradient vaccine (Wang et al., ICLR 2021, arXiv 2010.05874, sec. 3, eq. 2 and 3, algorithm 1).

    Like PCGrad it takes one other task after the other in random order. If the cosine φ between p_i (at first g_i) and
    g_j lies below a target φ*_ij, p_i is turned until it has that cosine:

        p_i <- p_i + |p_i| (φ* sqrt(1 - φ²) - φ sqrt(1 - φ*²)) / (|g_j| sqrt(1 - φ*²)) g_j
        φ*_ij <- (1 - beta) φ*_ij + beta φ        (in any case; 0 at first, when the method is PCGrad)

    and gradient = sum of p_i. The p_i are linear combinations of the original gradients, so the Gramian suffices.
    Targets are limited to 0.999. For a pair whose g_j or p_i is zero, neither p_i nor the target changes.

    Shared parameters: those over which the cosines run, all together. This is the paper's granularity "whole model";
    its other granularities would need one method for each part of the model.
    Weights: at least 1 each, and exactly 1 if no cosine lies below its target or there is a single task; no fixed sum.
    Cost: one forward and T backward passes, memory for T gradients; the turns cost O(T³). The state holds the targets
    `[T, T]`. The orders depend on the random key of the step alone.

    Args:
        beta: Weight of the newest cosine in the moving average; 0.5 as in the library LibMTL.
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"beta is {beta}; it must be between 0 and 1")

    def init(num_tasks: int, shared: Tree) -> State:
        return {"targets": jnp.zeros((num_tasks, num_tasks))}

    def update(state: State, signals: Signals) -> tuple[Decision, State]:
        products = signals.gramian
        lengths = jnp.sqrt(jnp.diagonal(products))
        # If gradients are opposite, p_i may be a mere rounding error of g_i, whose cosine is random.
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
