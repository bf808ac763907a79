"""Nash-MTL: the Nash bargaining solution between the tasks."""

from mtl_jax.balancing.core import Balancer
from mtl_jax.balancing.registry import register
from mtl_jax.balancing.solvers import power_point
from mtl_jax.balancing.stateless import from_gramian


@register
def nash_mtl() -> Balancer:
    """Multi-task learning as a bargaining game (Navon et al., arXiv 2202.01017, claim 3.1).

    The d in a ball that maximises the sum of log(g_t · d) is sum_t w_t g_t with G w = 1 / w, element by element.
    Scaling a loss by s divides its weight by s and leaves everything else: the step does not depend on the scale of the
    losses. Its length is sqrt(T), whatever the gradients' (wᵀ G w = T): learning rates are not those of a sum of
    losses. The authors' code clips the step to length 1, which always applies and so is a factor 1 / sqrt(T); leave it
    to the learning rate or to optax.

    Shared parameters are those whose gradients form the Gramian. Cost: a backward pass and a gradient to them a task;
    the equation is solved by `solvers.power_point`, 30 Newton steps of T equations, rather than by the paper's sequence
    of convex programs. The paper may keep the weights for several steps to save backward passes; here the Gramian is
    there at every step. The weights have no fixed sum. Where the point is Pareto-stationary there is no solution;
    weights are large then and the step still has a length of at most sqrt(T). A task without gradient has weight 0 and
    counts nowhere. No hyper-parameters.
    """
    return from_gramian(lambda signals: power_point(signals.gramian, 1))
