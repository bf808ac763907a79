"""Nash-MTL: the Nash bargaining solution between the tasks."""

from mtl_jax.balancing.core import Balancer
from mtl_jax.balancing.registry import register
from mtl_jax.balancing.solvers import power_point
from mtl_jax.balancing.stateless import from_gramian


@register
def nash_mtl() -> Balancer:
    """Returns Nash-MTL, multi-task learning as a bargaining game (Navon et al., arXiv 2202.01017, claim 3.1).

    The d in a ball that maximises the sum of log(g_t · d) is sum_t w_t g_t with G w = 1 / w, element by element.
    Scaling a loss by s divides its weight by s and changes nothing else, so the step does not depend on the scale of
    the losses. The length of the step is sqrt(T) for gradients of any length (wᵀ G w = T), so suitable learning rates
    differ from those for a sum of losses. The authors' code clips the step to length 1. That amounts to a constant
    factor 1 / sqrt(T), which can be part of the learning rate or of the optax chain.

    Shared parameters are those whose gradients form the Gramian. Cost: one backward pass for each task, and memory for
    its gradient with respect to the shared parameters. The equation is solved by `solvers.power_point` with 30 Newton
    steps of T equations instead of the paper's sequence of convex programs. The paper permits weights that are kept for
    several steps, to save backward passes; here they are computed at every step. The weights have no fixed sum. At a
    Pareto-stationary point there is no solution; the weights are then large, and the length of the step is still at
    most sqrt(T). A task without gradient has weight 0 and is ignored. There are no parameters.
    """
    return from_gramian(lambda signals: power_point(signals.gramian, 1))
