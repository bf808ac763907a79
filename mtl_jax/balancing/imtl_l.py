"""IMTL-L, the loss balance of impartial multi-task learning."""

from mtl_jax.balancing.core import Balancer
from mtl_jax.balancing.registry import register
from mtl_jax.balancing.uncertainty import uncertainty


@register
def imtl_l(*, learning_rate: float = 1e-3) -> Balancer:
    """Returns IMTL-L, which learns scales that make all scaled losses equal (Liu et al., "Towards Impartial Multi-task
    Learning", ICLR 2021, sec. 3.2, eq. 6).

    The model and the learned scales s_t minimise the sum over t of exp(s_t) L_t - s_t, so that w_t = exp(s_t) tends to
    1 / L_t. The paper derives this objective without a likelihood. It equals that of `uncertainty` with regularizer 1
    and the log-variance -s_t, so this function returns that method.

    Shared parameters: any choice gives the same step, because all parameters follow the weighted sum.
    Weights: 1 each at the first step; no fixed sum; w_t L_t tends to 1. The s_t of a task without labels in the batch,
    whose loss is exactly 0, does not change.
    Cost: one forward and one backward pass; the state holds the scales `[T]` and their two moments for Adam.

    Args:
        learning_rate: Learning rate of Adam for s; the default 1e-3 is the usual one of Adam. The paper learns s with
            the optimiser of the model: pass the learning rate of the model to follow it.
    """
    return uncertainty(regularizer=1.0, learning_rate=learning_rate)
