"""FairGrad: an alpha-fair allocation of the decrease of the losses."""

from mtl_jax.balancing.core import Balancer
from mtl_jax.balancing.registry import register
from mtl_jax.balancing.solvers import power_point
from mtl_jax.balancing.stateless import from_gramian


@register
def fairgrad(*, alpha: float = 2.0) -> Balancer:
    """Returns FairGrad, fair resource allocation in multi-task learning (Ban & Ji, ICML 2024, arXiv 2402.15638, eq. 4,
    alg. 1).

    The d in a ball that maximises the sum of (g_t · d)^(1 - alpha) / (1 - alpha) is sum_t w_t g_t with G w = w^(-1 /
    alpha), element by element: w_t = (g_t · d)^-alpha. alpha = 1 is proportional fairness, as in Nash-MTL; alpha = 2
    gives the least potential delay; alpha to infinity gives max-min fairness, the direction of MGDA. If the gradients
    are orthogonal, scaling one loss by s scales its weight by s^(-2 alpha / (1 + alpha)): a weaker effect than 1 / s
    for alpha < 1, and a stronger one for alpha > 1.

    Shared parameters are those whose gradients form the Gramian. Cost: one backward pass for each task, and memory for
    its gradient with respect to the shared parameters. The equation is solved by `solvers.power_point`, whose docstring
    gives the range of alpha. The weights have no fixed sum. At a Pareto-stationary point there is no solution; the
    weights are then large and the step is small. A task without gradient has weight 0 and is ignored.

    Args:
        alpha: Kind of fairness, above 0. The paper tunes it for each data set. The default 2 is not from the paper;
            LibMTL's repository uses 1.
    """
    if alpha <= 0:
        raise ValueError(f"alpha is {alpha}; it must be above 0 (0 would be the plain sum of the losses)")
    return from_gramian(lambda signals: power_point(signals.gramian, 1 / alpha))
