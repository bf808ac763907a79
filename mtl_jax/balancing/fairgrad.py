"""FairGrad: alpha-fair allocation of the decrease of the losses."""

from mtl_jax.balancing.core import Balancer
from mtl_jax.balancing.registry import register
from mtl_jax.balancing.solvers import power_point
from mtl_jax.balancing.stateless import from_gramian


@register
def fairgrad(*, alpha: float = 2.0) -> Balancer:
    """Fair resource allocation in multi-task learning (Ban & Ji, ICML 2024, arXiv 2402.15638, eq. 4, alg. 1).

    The d in a ball that maximises the sum of (g_t · d)^(1 - alpha) / (1 - alpha) is sum_t w_t g_t with G w = w^(-1 /
    alpha), element by element: w_t = (g_t · d)^-alpha. alpha = 1 is proportional fairness, Nash-MTL; 2 the least
    potential delay; to infinity max-min fairness, MGDA's direction. Scaling one loss by s scales its weight by s^(-2
    alpha / (1 + alpha)) where gradients are orthogonal: less than 1 / s for alpha < 1, more for alpha > 1.

    Shared parameters are those whose gradients form the Gramian. Cost: a backward pass and a gradient to them a task;
    the equation is solved by `solvers.power_point`, whose docstring says how far alpha may go. The weights have no
    fixed sum. Where the point is Pareto-stationary there is no solution; weights are large then and the step small. A
    task without gradient has weight 0 and counts nowhere.

    Args:
        alpha: > 0; kind of fairness. The paper tunes it for each data set and has no default; 2 is ours, 1 that of
            LibMTL's repository.
    """
    if alpha <= 0:
        raise ValueError(f"alpha is {alpha}; it must be above 0 (0 would be the plain sum of the losses)")
    return from_gramian(lambda signals: power_point(signals.gramian, 1 / alpha))
