"""FAMO: equal rates of decrease, learned from the losses before and after each step."""

import jax
import jax.numpy as jnp
import optax

from mtl_jax.balancing.core import Balancer, Decision, Signals, State, Tree
from mtl_jax.balancing.labelled import labelled, softmax
from mtl_jax.balancing.registry import register

_SMALLEST = 1e-8  # added to a loss, so that its logarithm exists at the lower bound


@register
def famo(*, learning_rate: float = 0.025, weight_decay: float = 1e-3, minimum: float = 0.0) -> Balancer:
    """Returns fast adaptive multitask optimisation, FAMO (Liu et al., NeurIPS 2023, arXiv 2306.03792, sec. 3,
    algorithm 1; appendix C, algorithm 2).

        w_t = c z_t / D_t,    z = softmax(ξ),    D_t = L_t - minimum + 1e-8,    c = 1 / (sum of z_t / D_t)

    With the optimal z, all log D_t would fall by the same amount. Instead of solving for z, the method learns ξ: after
    every step it follows the gradient of z·δ + weight_decay ξ²/2, where δ = log D before the step - log D after the
    step, on the same batch. A task whose loss fell more than the others loses weight. Adam makes the step, with the
    weight decay in its gradient, as in algorithm 2.

    A task without labels in the batch, whose loss is exactly 0, has weight 0 and its ξ does not change.
    `balancing.observe` must be called with the losses after the optimiser's step; without it ξ stays 0.

    Shared parameters: any choice gives the same step, because all parameters follow the weighted sum.
    Weights: sum to 1.
    Cost: two forward passes (the second for `observe`) and one backward pass; the state holds ξ `[T]` and its two
    moments for Adam.

    Args:
        learning_rate: Learning rate of ξ; 0.025 in the authors' code and in LibMTL's repository.
        weight_decay: The factor γ; 1e-3 in algorithm 2. The paper tunes it for each data set (1e-5 in the authors'
            code).
        minimum: Lower bound of all losses. Smaller losses count as this bound.
    """
    if learning_rate <= 0:
        raise ValueError(f"learning_rate is {learning_rate}; it must be positive")
    if weight_decay < 0:
        raise ValueError(f"weight_decay is {weight_decay}; it must be at least 0")

    optimizer = optax.chain(optax.add_decayed_weights(weight_decay), optax.adam(learning_rate))

    def excess(losses: jax.Array) -> jax.Array:
        return jnp.maximum(losses - minimum, 0) + _SMALLEST

    def init(num_tasks: int, shared: Tree) -> State:
        logits = jnp.zeros(num_tasks)
        return {"logits": logits, "adam": optimizer.init(logits)}

    def update(state: State, signals: Signals) -> tuple[Decision, State]:
        # c z / D is a softmax, too. Computed as one from the logarithms, it cannot overflow.
        losses = signals.losses
        return Decision(softmax(state["logits"] - jnp.log(excess(losses)), labelled(losses))), state

    def observe(state: State, before: jax.Array, after: jax.Array) -> State:
        logits, among = state["logits"], labelled(before)
        delta = (jnp.log(excess(before)) - jnp.log(excess(after))).astype(logits.dtype)
        z = softmax(logits, among)
        gradient = z * (delta - jnp.sum(z * delta))  # the transposed Jacobian of the softmax times delta
        step, adam = optimizer.update(gradient, state["adam"], logits)
        return {"logits": jnp.where(among, optax.apply_updates(logits, step), logits), "adam": adam}

    return Balancer(init, update, observe=observe)
