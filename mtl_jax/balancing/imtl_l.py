"""The loss half of impartial multi-task learning."""

from mtl_jax.balancing.core import Balancer
from mtl_jax.balancing.registry import register
from mtl_jax.balancing.uncertainty import uncertainty


@register
def imtl_l(*, learning_rate: float = 1e-3) -> Balancer:
    """Learns scales that make all scaled losses equal (IMTL-L; Liu et al., "Towards Impartial Multi-task Learning",
    ICLR 2021, sec. 3.2, eq. 6).

    The model and the scales s_t minimise the sum over t of exp(s_t) L_t - s_t, so that w_t = exp(s_t) tends to
    1 / L_t. The paper arrives there without a likelihood, but the objective is that of `uncertainty` with regularizer 1
    and -s_t as its log-variance, and that is what the function returns.

    Shared parameters: any choice gives the same step, because all parameters follow the weighted sum.
    Weights: 1 each at first, no fixed sum; w_t L_t tends to 1. A loss of exactly 0, that of a task without
    labels in the batch, leaves s_t as it is.
    Cost: one forward and one backward pass; the state holds `[T]` scales and Adam's two moments of them.

    Args:
        learning_rate: of Adam for s. The paper learns s with the model's own optimiser: give its rate. 1e-3 is Adam's.
    """
    return uncertainty(regularizer=1.0, learning_rate=learning_rate)
