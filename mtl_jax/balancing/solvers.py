"""The small convex programs behind the methods that need only the Gramian G = J Jᵀ of the gradients.

All of them run inside jit, in the Gramian's dtype, with a number of steps that depends on the number of tasks alone.
What they share:

* Scale. G is split into the gradients' norms and their cosines, so that norms from 1e-15 to 1e15, and of very different
  size within one problem, cost no accuracy in float32.
* A task whose gradient is zero (in practice: a batch without a label of it) is absent. Its weight is 0 and the others'
  are those of the problem without it; with no gradient at all every weight is 0.
* Exactness. The quadratic programs and CAGrad's are solved by enumeration: for every set of tasks that may carry weight
  there is a closed form, all 2^T are computed at once, and the conditions of optimality tell the right one. No
  iteration has to converge. T = 10 is 1023 systems of ten equations, 4 ms on a CPU core. For more than 12 tasks an
  active-set method takes the place (`active_set.py`), whose accuracy is about 8 T eps, and which need not give equal
  tasks equal weights: the direction is the same.
* Ties. Where gradients depend on one another several weights give one and the same direction; the mean of those found
  is returned, so that equal tasks get equal weights and the order of the tasks does not matter.

Accuracy: the conditions of optimality hold within about 10 T eps, relative to the gradients that they are made of
(eps: 1.2e-7 in float32). The weights then are as accurate as the problem allows: their error is about eps times the
condition number of the cosines of the tasks that carry weight.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.balancing.active_set import nonnegative

ENUMERATED = 12  # tasks at most: 4095 systems, 10 MB; each further task doubles both time and memory
LEVEL_STEPS = 20  # three times what random problems of 100 tasks take
NEWTON_STEPS = 30  # twice what the hardest problems of the tests take


class Gradients(NamedTuple):
    """A Gramian, taken apart.

    Attributes:
        norms: `[T]`; 1 for absent tasks.
        cosines: `[T, T]`; rows and columns of absent tasks are 0.
        present: `[T]`, whether the gradient is not zero.
    """

    norms: jax.Array
    cosines: jax.Array
    present: jax.Array


def take_apart(gramian: jax.Array) -> Gradients:
    """Norms and cosines of the gradients of a Gramian `[T, T]`."""
    squares = jnp.diagonal(gramian)
    present = squares > 0
    norms = jnp.sqrt(jnp.where(present, squares, 1))
    pairs = present[:, None] & present[None, :]
    cosines = jnp.where(pairs, gramian / norms[:, None] / norms[None, :], 0)
    # Exact ones: a diagonal of 1 - eps would make a gradient look independent of itself.
    diagonal = jnp.eye(len(gramian), dtype=bool)
    return Gradients(norms, jnp.where(diagonal & pairs, 1, jnp.clip(cosines, -1, 1)), present)


def min_norm(gramian: jax.Array) -> jax.Array:
    """The point of least norm in the convex hull of the gradients: argmin of wᵀ G w over w >= 0, sum of w = 1."""
    gradients = take_apart(gramian)
    if len(gramian) > ENUMERATED:
        # Of all v >= 0 the multiple of the solution minimises vᵀ C v / 2 + (q·v - 1)² / 2, in the terms used below.
        q = _relative(1 / gradients.norms, gradients.present)
        v, _ = nonnegative(gradients.cosines + q[:, None] * q[None, :], q)
        return _scaled_to_sum((v * q)[None], 1)[0]
    masks = _subsets(len(gramian))
    # In v = norms * w: minimise vᵀ C v with q·v constant, q = 1 / norms. Adding the square of the constant, q qᵀ,
    # makes the system regular wherever the gradients are affinely independent; the scale of q is free in each set.
    q = _relative(1 / gradients.norms, gradients.present)
    set_q = jnp.where(masks, q[None, :], 0)
    set_q = set_q / jnp.maximum(jnp.max(set_q, axis=1, keepdims=True), jnp.finfo(q.dtype).tiny)
    v, regular = _solve_sets(gradients.cosines[None] + set_q[:, :, None] * set_q[:, None, :], set_q[:, :, None], masks)
    v = _scaled_to_sum(jnp.maximum(v[..., 0], 0), 1)
    # Optimal: g_i · d = d · d for tasks that carry weight, and no less for the others; divided by the norms.
    products = _times(v, gradients.cosines)
    square = jnp.sum(v * products, axis=1, keepdims=True)
    level = square * q[None, :] / jnp.maximum(jnp.sum(v * q[None, :], axis=1, keepdims=True), jnp.finfo(q.dtype).tiny)
    v = _optimal(v, jnp.where(gradients.present[None, :], products - level, 0), regular)
    return _scaled_to_sum((v * q)[None], 1)[0]


def dual_cone(gramian: jax.Array) -> jax.Array:
    """Projects every gradient onto the dual cone of them all, the directions that conflict with none.

    Row i of the result `[T, T]` is the v >= e_i (element by element) that minimises vᵀ G v: Jᵀ v is the projection of
    gradient i (arXiv 2406.16232, prop. 1).
    """
    gradients = take_apart(gramian)
    tasks = len(gramian)
    cosines, present = gradients.cosines, gradients.present
    # Of unit gradients, v = e_i + u with u >= 0: C u = -C e_i on the set, all right-hand sides i at once.
    if tasks > ENUMERATED:
        u, _ = jax.vmap(nonnegative, in_axes=(None, 0))(cosines, -cosines)
    else:
        masks = jnp.concatenate([jnp.zeros((1, tasks), bool), _subsets(tasks)])  # the empty set: nothing to correct
        u, regular = _solve_sets(jnp.broadcast_to(cosines, (len(masks), tasks, tasks)), -cosines[None], masks)
        u = jnp.maximum(jnp.swapaxes(u, 1, 2), 0)  # [sets, i, j]
        slack = cosines[None] + jnp.einsum("sij,jk->sik", u, cosines, precision=jax.lax.Precision.HIGHEST)
        u = jax.vmap(_optimal, in_axes=(1, 1, None))(u, slack, regular)
    ratio = jnp.where(present[:, None] & present[None, :], gradients.norms[:, None] / gradients.norms[None, :], 0)
    return jnp.diag(present.astype(u.dtype)) + u * ratio


def conflict_averse(gramian: jax.Array, c: float) -> jax.Array:
    """The weights of CAGrad's program: argmin of g_w · g_0 + c |g_0| |g_w| over w >= 0, sum of w = 1.

    g_w is the gradients' sum weighted by w, g_0 their mean. With w on a set S of tasks the conditions are
    b + (c |g_0| / |g_w|) G w = λ on S, b = G 1 / T. In x = G⁻¹ 1 and y = G⁻¹ b, w is a multiple of λ x - y, and its
    norm gives a quadratic equation for λ. Sets of dependent gradients need no look: their optimum is 0, as at g_w = 0.
    """
    gradients = take_apart(gramian)
    norms, cosines, present = gradients
    tiny = jnp.finfo(norms.dtype).tiny
    q = _relative(1 / norms, present)
    lengths = jnp.where(present, norms / jnp.max(jnp.where(present, norms, tiny)), 0)
    mean = _times(lengths[None], cosines)[0]  # products of the unit gradients with g_0, up to a factor
    h = mean / jnp.sqrt(jnp.maximum(lengths @ mean, tiny))  # the factor: now with g_0 / |g_0|
    h = jnp.clip(h, -1, 1)
    nearest = _scaled_to_sum((min_norm(gramian) * lengths)[None], 1)[0]

    def program(v: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Value `[S]` and derivative `[S, T]` at v `[S, T]`, where q·v is 1."""
        products = _times(v, cosines)
        length = jnp.sqrt(jnp.maximum(jnp.sum(v * products, axis=1, keepdims=True), 0))
        derivative = h[None, :] + c * products / jnp.maximum(length, tiny)
        scale = jnp.maximum(v @ q, tiny)
        return (v @ h + c * length[:, 0]) / scale, derivative

    if len(gramian) > ENUMERATED:
        best = _level_set(cosines, q, h, c, program(nearest[None])[0][0])
    else:
        best = _best_set(gradients, q, h, c, program)
    candidates = jnp.stack([best, nearest])
    w = _scaled_to_sum(candidates * q[None, :], 1)
    values, _ = program(candidates)
    return jnp.where((values[0] <= values[1]) & (jnp.sum(best) > 0), w[0], w[1])  # with c = 0 no set has an optimum


def _best_set(gradients: Gradients, q: jax.Array, h: jax.Array, c: float, program: Callable[..., Any]) -> jax.Array:
    """v of CAGrad's program by enumeration; 0 where no set has an optimum."""
    cosines, tiny = gradients.cosines, jnp.finfo(q.dtype).tiny
    masks = _subsets(len(q))
    sides = jnp.where(masks, q[None, :], 0), jnp.where(masks, h[None, :], 0)
    solved, regular = _solve_sets(
        jnp.broadcast_to(cosines, (len(masks), *cosines.shape)), jnp.stack(sides, axis=-1), masks
    )
    x, y = solved[..., 0], solved[..., 1]
    xx, xy, yy = (jnp.sum(a * b, axis=1) for a, b in ((sides[0], x), (sides[0], y), (sides[1], y)))
    discriminant = xy**2 - xx * (yy - c**2)
    level = (xy + jnp.sqrt(jnp.maximum(discriminant, 0))) / jnp.maximum(xx, tiny)
    v = _scaled_to_sum(jnp.maximum(level[:, None] * x - y, 0), 1)

    value, derivative = program(v)
    slack = jnp.where(gradients.present[None, :], derivative - value[:, None] * q[None, :], 0)
    return _optimal(v, slack, regular & (discriminant > 0))


def _level_set(cosines: jax.Array, q: jax.Array, h: jax.Array, c: float, level: jax.Array) -> jax.Array:
    """v of CAGrad's program for many tasks.

    The value λ is the optimum where the largest (λ q - h) · v over v >= 0 of length 1 is c. That is a convex, rising
    function of λ, and what attains it is a nonnegative least-squares problem's solution: Newton's method comes down on
    the root from any larger value.

    Args:
        level: the value at any point.
    """
    tiny = jnp.finfo(q.dtype).tiny

    def step(_: int, carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        level, _previous, inside = carry
        side = level * q - h
        v, inside = nonnegative(cosines, side, inside)
        reached = jnp.sqrt(jnp.maximum(side @ v, 0))
        slope = (q @ v) / jnp.maximum(reached, tiny)
        lower = level - jnp.maximum(reached - c, 0) / jnp.maximum(slope, tiny)
        return jnp.where(reached > c, lower, level), v, inside

    start = (level, jnp.zeros_like(q), jnp.zeros(len(q), bool))
    v = jax.lax.fori_loop(0, LEVEL_STEPS, step, start)[1]
    return _scaled_to_sum(v[None], 1)[0]


def power_point(gramian: jax.Array, power: float) -> jax.Array:
    """The a > 0 with G a = a^-power, element by element.

    It minimises a convex function: aᵀ G a / 2 less the integrals of a^-power. Newton's method on the pair G a = z,
    log z + power log a = 0, the way interior-point methods go: steps end before a or z reaches 0. For powers between
    1/2 and 2 it takes 15 steps at most, norms 1e6 apart and dependent gradients included; it gets 30. Powers of 1/10
    and 10 need norms within a factor of 100.

    There is no solution where the gradients' hull contains 0 (a point that is Pareto-stationary); a ridge of 16 eps on
    the cosines keeps the weights finite there, and the direction Jᵀ a near 0. With two tasks and power 1 the solution
    is a_i = 1 / (norm_i sqrt(1 + cosine)).
    """
    norms, cosines, present = take_apart(gramian)
    tasks, eps = len(gramian), jnp.finfo(gramian.dtype).eps
    # a is its value for orthogonal gradients, norm^(-2 / (1 + power)), times y; with k = norm^((power - 1) / (power +
    # 1)) the equation then reads C (k y) = k y^-power: unit diagonal, and y near 1.
    logs = jnp.where(present, jnp.log(norms), 0)
    middle = jnp.sum(logs) / jnp.maximum(jnp.sum(present), 1)
    k = jnp.where(present, jnp.exp((logs - middle) * ((power - 1) / (power + 1))), 1)
    matrix = jnp.where(jnp.eye(tasks, dtype=bool), 1 + 16 * eps, cosines)

    def step(_: int, point: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        y, z = point
        ratio = power * z / y
        excess = z * (jnp.log(z) + power * jnp.log(y))
        side = k * (z - excess) - _times((k * y)[None], matrix)[0]
        system = matrix + jnp.diag(ratio)
        scale = jax.lax.rsqrt(jnp.diagonal(system))
        solved, _regular = _solve_sets(
            (system * scale[:, None] * scale[None, :])[None], (side * scale)[None, :, None], jnp.ones((1, tasks), bool)
        )
        dy = solved[0, :, 0] * scale / k
        dz = -excess - ratio * dy
        # Nine tenths of the way to the first element that would become 0.
        length = jnp.minimum(1, 0.9 / jnp.maximum(jnp.max(jnp.maximum(-dy / y, -dz / z)), 0.9))
        # The bounds matter only where the steps do not suffice, and keep the arithmetic finite there.
        return jnp.clip(y + length * dy, 1e-18, 1e18), jnp.clip(z + length * dz, 1e-18, 1e18)

    # Of all multiples of 1, the one that minimises the function.
    square = k @ _times(k[None], matrix)[0]
    start = (jnp.sum(k**2) / jnp.maximum(square, eps * jnp.sum(k**2))) ** (1 / (1 + power))
    first = jnp.full(tasks, start, gramian.dtype)
    y, _ = jax.lax.fori_loop(0, NEWTON_STEPS, step, (first, jnp.clip(first**-power, 1e-18, 1e18)))
    return jnp.where(present, y * jnp.exp(-2 / (1 + power) * logs), 0)


def _subsets(tasks: int) -> jax.Array:
    """All sets of tasks but the empty one, `[2^T - 1, T]`."""
    return jnp.asarray((np.arange(1, 2**tasks)[:, None] >> np.arange(tasks)[None, :]) & 1, bool)


def _solve_sets(matrices: jax.Array, sides: jax.Array, masks: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Solves the symmetric systems `[S, T, T]` x = `[S, T, K]`, each on the tasks of its mask `[S, T]`.

    Returns x, 0 outside the mask, and `[S]`: whether the gradients in the mask are independent. Elimination without
    exchange of rows is stable as the matrices are positive semi-definite; unlike LAPACK's it takes singular ones.
    """
    tasks = masks.shape[1]
    limit = 4 * tasks * jnp.finfo(matrices.dtype).eps
    outside = jnp.eye(tasks, dtype=matrices.dtype)[None] * ~masks[:, :, None]
    matrices = jnp.where(masks[:, :, None] & masks[:, None, :], matrices, outside)
    sides = jnp.where(masks[:, :, None], jnp.broadcast_to(sides, (*masks.shape, sides.shape[-1])), 0)

    def eliminate(k: int, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        table, regular = carry
        row = jax.lax.dynamic_index_in_dim(table, k, axis=1, keepdims=False)
        column = jax.lax.dynamic_index_in_dim(table, k, axis=2, keepdims=False)
        pivot = jax.lax.dynamic_index_in_dim(row, k, axis=1, keepdims=False)
        regular &= pivot > limit
        row = row / jnp.where(pivot > limit, pivot, 1)[:, None]
        here = (jnp.arange(tasks) == k)[None, :, None]
        return jnp.where(here, row[:, None, :], table - column[:, :, None] * row[:, None, :]), regular

    table, regular = jax.lax.fori_loop(
        0, tasks, eliminate, (jnp.concatenate([matrices, sides], axis=2), jnp.ones(len(masks), bool))
    )
    return jnp.where(regular[:, None, None], table[:, :, tasks:], 0), regular


def _optimal(points: jax.Array, slack: jax.Array, regular: jax.Array) -> jax.Array:
    """Mean of the points `[S, T]` that come nearest to min(point, slack) = 0, the conditions of optimality."""
    residual = jnp.max(jnp.abs(jnp.minimum(points, slack)), axis=1)
    residual = jnp.where(regular, residual, jnp.finfo(points.dtype).max)
    near = residual <= jnp.min(residual) + 4 * points.shape[1] * jnp.finfo(points.dtype).eps
    return jnp.sum(jnp.where(near[:, None], points, 0), axis=0) / jnp.sum(near)


def _relative(values: jax.Array, present: jax.Array) -> jax.Array:
    """Values over the largest of them, 0 where absent."""
    values = jnp.where(present, values, 0)
    return values / jnp.maximum(jnp.max(values), jnp.finfo(values.dtype).tiny)


def _scaled_to_sum(values: jax.Array, total: float) -> jax.Array:
    """Rows `[S, T]` of values >= 0 scaled to a sum; rows of zeros stay."""
    sums = jnp.sum(values, axis=1, keepdims=True)
    return jnp.where(sums > 0, total * values / jnp.where(sums > 0, sums, 1), 0)


def _times(rows: jax.Array, matrix: jax.Array) -> jax.Array:
    return jnp.matmul(rows, matrix, precision=jax.lax.Precision.HIGHEST)
