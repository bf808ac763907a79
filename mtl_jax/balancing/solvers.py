"""Solvers of the small convex programs of the methods that need only the Gramian G = J Jᵀ of the gradients.

All solvers run inside jit, in the dtype of the Gramian, with a number of steps that depends on the number of tasks
alone. They have this in common:

* Scale. G is split into the norms of the gradients and their cosines. Norms from 1e-15 to 1e15, and norms of very
  different size within one problem, therefore cost no accuracy in float32.
* Absent tasks. A task whose gradient is zero (in practice, a task without a label in the batch) is absent: its weight
  is 0, and the other weights solve the problem without it. If all gradients are zero, all weights are 0.
* Exactness. The quadratic programs and that of CAGrad are solved by enumeration: there is a closed form for every set
  of tasks that may carry weight. All 2^T forms are computed at once, and the conditions of optimality select the right
  one, so no iteration has to converge. T = 10 means 1023 systems of ten equations, which take 4 ms on a CPU core. For
  more than 12 tasks an active-set method is used (`active_set.py`). Its accuracy is about 8 T eps, and it may give
  equal tasks different weights; the direction is the same.
* Ties. If gradients are linearly dependent, several weights give the same direction. The solvers return the mean of
  the optimal weights, so equal tasks get equal weights and the order of the tasks does not matter.

Accuracy: the conditions of optimality hold within about 10 T eps, relative to the gradients they consist of (eps is
1.2e-7 in float32). The weights are as accurate as the problem permits: their error is about eps times the condition
number of the cosines of the tasks that carry weight.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.balancing.active_set import nonnegative

ENUMERATED = 12  # largest number of tasks to enumerate: 4095 systems, 10 MB; each further task doubles time and memory
LEVEL_STEPS = 20  # three times the number that random problems of 100 tasks need
NEWTON_STEPS = 30  # twice the number that the hardest problems of the tests need


class Gradients(NamedTuple):
    """The norms and cosines of the gradients of T tasks.

    Attributes:
        norms: Norms `[T]`; 1 for absent tasks.
        cosines: Cosines `[T, T]`; 0 in the rows and columns of absent tasks.
        present: Bool `[T]`, True for the tasks whose gradient is not zero.
    """

    norms: jax.Array
    cosines: jax.Array
    present: jax.Array


def take_apart(gramian: jax.Array) -> Gradients:
    """Computes the norms and cosines of the gradients from their Gramian `[T, T]`."""
    squares = jnp.diagonal(gramian)
    present = squares > 0
    norms = jnp.sqrt(jnp.where(present, squares, 1))
    pairs = present[:, None] & present[None, :]
    cosines = jnp.where(pairs, gramian / norms[:, None] / norms[None, :], 0)
    # The diagonal is set to exactly 1, because with 1 - eps a gradient would look independent of itself.
    diagonal = jnp.eye(len(gramian), dtype=bool)
    return Gradients(norms, jnp.where(diagonal & pairs, 1, jnp.clip(cosines, -1, 1)), present)


def min_norm(gramian: jax.Array) -> jax.Array:
    """Computes the weights `[T]` of the shortest vector in the convex hull of the gradients.

    The weights minimise wᵀ G w over w >= 0, sum of w = 1, for a Gramian G `[T, T]`.
    """
    gradients = take_apart(gramian)
    if len(gramian) > ENUMERATED:
        # In the notation used below: over v >= 0 a multiple of the solution minimises vᵀ C v / 2 + (q·v - 1)² / 2.
        q = _relative(1 / gradients.norms, gradients.present)
        v, _ = nonnegative(gradients.cosines + q[:, None] * q[None, :], q)
        return _scaled_to_sum((v * q)[None], 1)[0]
    masks = _subsets(len(gramian))
    # With v = norms * w and q = 1 / norms, the problem is to minimise vᵀ C v at constant q·v. Adding the square of this
    # constant, q qᵀ, makes the system regular if the gradients are affinely independent. The scale of q is free in each
    # set.
    q = _relative(1 / gradients.norms, gradients.present)
    set_q = jnp.where(masks, q[None, :], 0)
    set_q = set_q / jnp.maximum(jnp.max(set_q, axis=1, keepdims=True), jnp.finfo(q.dtype).tiny)
    v, regular = _solve_sets(gradients.cosines[None] + set_q[:, :, None] * set_q[:, None, :], set_q[:, :, None], masks)
    v = _scaled_to_sum(jnp.maximum(v[..., 0], 0), 1)
    # At the optimum g_i · d = d · d for tasks that carry weight, and g_i · d >= d · d for the others. Both sides are
    # divided by the norms here.
    products = _times(v, gradients.cosines)
    square = jnp.sum(v * products, axis=1, keepdims=True)
    level = square * q[None, :] / jnp.maximum(jnp.sum(v * q[None, :], axis=1, keepdims=True), jnp.finfo(q.dtype).tiny)
    v = _optimal(v, jnp.where(gradients.present[None, :], products - level, 0), regular)
    return _scaled_to_sum((v * q)[None], 1)[0]


def dual_cone(gramian: jax.Array) -> jax.Array:
    """Projects every gradient onto the dual cone of all gradients, i.e. onto the directions that conflict with none.

    Row i of the result `[T, T]` is the v >= e_i (element by element) that minimises vᵀ G v for the Gramian G `[T, T]`.
    The projection of gradient i is Jᵀ v (arXiv 2406.16232, prop. 1).
    """
    gradients = take_apart(gramian)
    tasks = len(gramian)
    cosines, present = gradients.cosines, gradients.present
    # For unit gradients v = e_i + u with u >= 0, and C u = -C e_i on the set. All right-hand sides are solved at once.
    if tasks > ENUMERATED:
        u, _ = jax.vmap(nonnegative, in_axes=(None, 0))(cosines, -cosines)
    else:
        masks = jnp.concatenate([jnp.zeros((1, tasks), bool), _subsets(tasks)])  # the empty set means u = 0
        u, regular = _solve_sets(jnp.broadcast_to(cosines, (len(masks), tasks, tasks)), -cosines[None], masks)
        u = jnp.maximum(jnp.swapaxes(u, 1, 2), 0)  # [sets, i, j]
        slack = cosines[None] + jnp.einsum("sij,jk->sik", u, cosines, precision=jax.lax.Precision.HIGHEST)
        u = jax.vmap(_optimal, in_axes=(1, 1, None))(u, slack, regular)
    ratio = jnp.where(present[:, None] & present[None, :], gradients.norms[:, None] / gradients.norms[None, :], 0)
    return jnp.diag(present.astype(u.dtype)) + u * ratio


def conflict_averse(gramian: jax.Array, c: float) -> jax.Array:
    """Computes the weights of CAGrad's program: argmin of g_w · g_0 + c |g_0| |g_w| over w >= 0, sum of w = 1.

    g_w is the sum of the gradients weighted by w, and g_0 is their mean. For w on a set S of tasks the conditions are
    b + (c |g_0| / |g_w|) G w = λ on S, with b = G 1 / T. With x = G⁻¹ 1 and y = G⁻¹ b, w is a multiple of λ x - y, and
    its norm gives a quadratic equation for λ. Sets of dependent gradients can be skipped: their optimum is 0, that of
    g_w = 0.
    """
    gradients = take_apart(gramian)
    norms, cosines, present = gradients
    tiny = jnp.finfo(norms.dtype).tiny
    q = _relative(1 / norms, present)
    lengths = jnp.where(present, norms / jnp.max(jnp.where(present, norms, tiny)), 0)
    mean = _times(lengths[None], cosines)[0]  # products of the unit gradients with g_0, up to a factor
    h = mean / jnp.sqrt(jnp.maximum(lengths @ mean, tiny))  # products with g_0 / |g_0|, without the factor
    h = jnp.clip(h, -1, 1)
    nearest = _scaled_to_sum((min_norm(gramian) * lengths)[None], 1)[0]

    def program(v: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Computes the value `[S]` and the derivative `[S, T]` at v `[S, T]`, scaled to q·v = 1."""
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
    return jnp.where((values[0] <= values[1]) & (jnp.sum(best) > 0), w[0], w[1])  # for c = 0 no set has an optimum


def _best_set(gradients: Gradients, q: jax.Array, h: jax.Array, c: float, program: Callable[..., Any]) -> jax.Array:
    """Solves CAGrad's program for v `[T]` by enumeration; returns 0 if no set has an optimum."""
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
    """Solves CAGrad's program for v `[T]` for many tasks.

    The value λ is optimal if the maximum of (λ q - h) · v over v >= 0 of length 1 equals c. This maximum is a convex,
    increasing function of λ, and the maximiser solves a nonnegative least-squares problem. Newton's method therefore
    descends to the root from any larger λ.

    Args:
        cosines: Cosines `[T, T]` of the gradients.
        q: Inverse norms `[T]` of the gradients, relative to the largest one.
        h: Products `[T]` of the unit gradients with the direction of the mean gradient.
        c: Radius of CAGrad's ball relative to the mean gradient.
        level: Value of the program at any point.
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
    """Solves G a = a^-power, element by element, for a > 0 `[T]` and a Gramian G `[T, T]`.

    The solution minimises a convex function: aᵀ G a / 2 minus the integrals of a^-power. It is found by Newton's method
    on the pair G a = z, log z + power log a = 0. As in interior-point methods, each step ends before an element of a or
    z reaches 0. For powers between 1/2 and 2 at most 15 steps are needed, even for norms 1e6 apart and dependent
    gradients; 30 are made. Powers of 1/10 and 10 need norms within a factor of 100.

    There is no solution if the convex hull of the gradients contains 0 (at a Pareto-stationary point). A ridge of
    16 eps on the cosines then keeps the weights finite and the direction Jᵀ a near 0. For two tasks and power 1 the
    solution is a_i = 1 / (norm_i sqrt(1 + cosine)).
    """
    norms, cosines, present = take_apart(gramian)
    tasks, eps = len(gramian), jnp.finfo(gramian.dtype).eps
    # For orthogonal gradients a would be norm^(-2 / (1 + power)). The unknown y is a divided by this value. With
    # k = norm^((power - 1) / (power + 1)) the equation is C (k y) = k y^-power, with a unit diagonal and y near 1.
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
        # At most nine tenths of the way to the point where the first element becomes 0.
        length = jnp.minimum(1, 0.9 / jnp.maximum(jnp.max(jnp.maximum(-dy / y, -dz / z)), 0.9))
        # The bounds keep the arithmetic finite in problems for which the steps do not suffice.
        return jnp.clip(y + length * dy, 1e-18, 1e18), jnp.clip(z + length * dz, 1e-18, 1e18)

    # The start is the multiple of the vector of ones that minimises the function.
    square = k @ _times(k[None], matrix)[0]
    start = (jnp.sum(k**2) / jnp.maximum(square, eps * jnp.sum(k**2))) ** (1 / (1 + power))
    first = jnp.full(tasks, start, gramian.dtype)
    y, _ = jax.lax.fori_loop(0, NEWTON_STEPS, step, (first, jnp.clip(first**-power, 1e-18, 1e18)))
    return jnp.where(present, y * jnp.exp(-2 / (1 + power) * logs), 0)


def _subsets(tasks: int) -> jax.Array:
    """Returns all sets of tasks but the empty one, bool `[2^T - 1, T]`."""
    return jnp.asarray((np.arange(1, 2**tasks)[:, None] >> np.arange(tasks)[None, :]) & 1, bool)


def _solve_sets(matrices: jax.Array, sides: jax.Array, masks: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Solves the symmetric systems `[S, T, T]` x = `[S, T, K]`, each on the tasks of its mask `[S, T]`.

    Elimination without exchange of rows is stable, because the matrices are positive semi-definite. Unlike that of
    LAPACK it accepts singular matrices.

    Returns:
        The pair of x `[S, T, K]`, which is 0 outside the mask, and a bool `[S]` that is True for the masks whose
        gradients are independent.
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
    """Averages the points `[S, T]` that are nearest to the conditions of optimality, min(point, slack) = 0."""
    residual = jnp.max(jnp.abs(jnp.minimum(points, slack)), axis=1)
    residual = jnp.where(regular, residual, jnp.finfo(points.dtype).max)
    near = residual <= jnp.min(residual) + 4 * points.shape[1] * jnp.finfo(points.dtype).eps
    return jnp.sum(jnp.where(near[:, None], points, 0), axis=0) / jnp.sum(near)


def _relative(values: jax.Array, present: jax.Array) -> jax.Array:
    """Divides values `[T]` by the largest one; returns 0 for absent tasks."""
    values = jnp.where(present, values, 0)
    return values / jnp.maximum(jnp.max(values), jnp.finfo(values.dtype).tiny)


def _scaled_to_sum(values: jax.Array, total: float) -> jax.Array:
    """Scales rows `[S, T]` of values >= 0 to the sum `total`; rows of zeros do not change."""
    sums = jnp.sum(values, axis=1, keepdims=True)
    return jnp.where(sums > 0, total * values / jnp.where(sums > 0, sums, 1), 0)


def _times(rows: jax.Array, matrix: jax.Array) -> jax.Array:
    return jnp.matmul(rows, matrix, precision=jax.lax.Precision.HIGHEST)
