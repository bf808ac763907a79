"""ExcessMTL: more weight for the tasks that are further from their optimum, however large their loss is there."""

import jax
import jax.numpy as jnp

from mtl_jax.balancing.core import Balancer, Decision, Signals, State, Tree
from mtl_jax.balancing.registry import register


@register
def excess_mtl(*, step_size: float = 0.01, warm_up: int = 0) -> Balancer:
    """Returns ExcessMTL (He et al., "Robust Multi-Task Learning with Excess Risks", ICML 2024, arXiv 2402.02009,
    sec. 3, eq. 6, 7 and 9).

    The excess risk is the difference between the loss and the least attainable loss. It is estimated by a Taylor
    expansion whose Hessian is replaced by the root of the summed squares of the gradients, as in Adagrad. The ratio of
    the excess risk to its first value drives multiplicative weights:

        E_t = g_tᵀ diag(sum over the steps of g_t²)^(-1/2) g_t
        w_t <- w_t exp(step_size E_t / E_t at first),    then w <- w / sum of w

    The weight of a noisy task, whose loss stays high but whose gradient vanishes on average, does not rise. "At first"
    means the mean over the first `warm_up` steps, in which the weights do not change. With `warm_up` 0 it means the
    first value that is not 0.

    Shared parameters: those over which the estimate runs. The paper uses the whole shared trunk and weighs the losses,
    so the other parameters follow the weighted sum, too.
    Weights: sum to 1; 1 / T each at the first step. A single task has weight 1.
    Cost: one forward and T backward passes; memory for T gradients, and for the sums of squares in the state, which are
    as large as T more gradients in at least float32.

    Args:
        step_size: Step size of the weights; 0.01 in LibMTL's repository.
        warm_up: Number of steps of the mean. The paper uses the number of steps in three epochs (appendix C.1). The
            authors' code has no warm-up, and does not divide the very first E_t.
    """
    if step_size <= 0:
        raise ValueError(f"step_size is {step_size}; it must be positive")
    if warm_up < 0:
        raise ValueError(f"warm_up is {warm_up}; it must be a number of steps, or 0")

    def init(num_tasks: int, shared: Tree) -> State:
        def squares(leaf: jax.Array) -> jax.Array:
            return jnp.zeros((num_tasks, *leaf.shape), jnp.promote_types(leaf.dtype, jnp.float32))

        zeros = jnp.zeros(num_tasks)
        step = jnp.zeros((), jnp.int32)
        return {"squares": jax.tree.map(squares, shared), "first": zeros, "logits": zeros, "step": step}

    def update(state: State, signals: Signals) -> tuple[Decision, State]:
        squares = jax.tree.map(lambda sums, new: sums + new.astype(sums.dtype) ** 2, state["squares"], signals.jacobian)
        excess = jnp.zeros_like(state["first"])
        for sums, new in zip(jax.tree.leaves(squares), jax.tree.leaves(signals.jacobian), strict=True):
            root = jnp.sqrt(sums)
            terms = jnp.where(root > 0, new.astype(root.dtype) ** 2 / jnp.where(root > 0, root, 1), 0)
            excess = excess + terms.reshape(len(excess), -1).sum(axis=1).astype(excess.dtype)

        first, warm = state["first"], state["step"] >= warm_up
        first = jnp.where(warm, jnp.where(first > 0, first, excess), first + excess / max(warm_up, 1))
        relative = jnp.where(warm & (first > 0), excess / jnp.where(first > 0, first, 1), 0)
        logits = jax.nn.log_softmax(state["logits"] + step_size * relative)  # logarithms neither over- nor underflow
        weights = jnp.exp(logits)
        state = {"squares": squares, "first": first, "logits": logits, "step": state["step"] + 1}
        return Decision(weights, specific=weights), state

    return Balancer(init, update, "jacobian")
