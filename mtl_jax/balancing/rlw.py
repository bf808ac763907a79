"""Random loss weighting: weights drawn at random at every step."""

from typing import Literal

import jax
import jax.numpy as jnp

from mtl_jax.balancing.core import Balancer, Decision, Signals, State, Tree
from mtl_jax.balancing.registry import register


@register
def rlw(*, distribution: Literal["normal", "dirichlet"] = "normal") -> Balancer:
    """Returns random loss weighting (Lin et al., TMLR 2022, arXiv 2111.10603, sec. 3).

    The weights are w = softmax(z) with z_t drawn from N(0, 1), or w is drawn from Dirichlet(1, ..., 1), i.e. uniformly
    from the simplex.

    Shared parameters: any choice gives the same step, because all parameters follow the weighted sum.
    Weights: sum to 1, each 1 / T on average.
    Cost: one forward and one backward pass; no state. The weights depend on the random key of the step alone.

    Args:
        distribution: Distribution of the weights, "normal" (the default of the paper) or "dirichlet".
    """
    if distribution not in ("normal", "dirichlet"):
        raise ValueError(f"distribution is {distribution!r}; it must be 'normal' or 'dirichlet'")

    def init(num_tasks: int, shared: Tree) -> State:
        return ()

    def update(state: State, signals: Signals) -> tuple[Decision, State]:
        losses = signals.losses
        if distribution == "normal":
            weights = jax.nn.softmax(jax.random.normal(signals.key, losses.shape, losses.dtype))
        else:
            weights = jax.random.dirichlet(signals.key, jnp.ones_like(losses), dtype=losses.dtype)
        return Decision(weights), state

    return Balancer(init, update)
