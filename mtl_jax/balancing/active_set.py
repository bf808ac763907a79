"""An active-set method for convex programs over so many tasks that their sets cannot be enumerated."""

import jax
import jax.numpy as jnp


def nonnegative(matrix: jax.Array, side: jax.Array, start: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """Minimises xᵀ M x / 2 - side · x over x >= 0, for a positive semi-definite M `[T, T]` with ones on its diagonal.

    Uses the active-set method of Lawson and Hanson (Solving Least Squares Problems, 1974, ch. 23). The task whose
    weight gains most enters the set of tasks that carry weight, and tasks leave the set before their weights become
    negative. The method ends after 4 T entries at the latest, and needs about as many as tasks carry weight. A ridge of
    8 T eps makes the solution unique for linearly dependent gradients, and limits the accuracy.

    Args:
        matrix: The matrix M, `[T, T]`.
        side: The linear term, `[T]`.
        start: Set of tasks to try first, bool `[T]`. None means the empty set.

    Returns:
        The pair (x `[T]`, set of the tasks that carry weight, bool `[T]`).
    """
    tasks, eps = len(side), jnp.finfo(matrix.dtype).eps
    eye = jnp.eye(tasks, dtype=matrix.dtype)
    matrix = matrix + 8 * tasks * eps * eye

    def solve(inside: jax.Array) -> jax.Array:
        pairs = inside[:, None] & inside[None, :]
        factor = jax.scipy.linalg.cho_factor(jnp.where(pairs, matrix, eye))
        x = jax.scipy.linalg.cho_solve(factor, jnp.where(inside, side, 0))
        return jnp.where(inside & jnp.isfinite(x), x, 0)

    def blocked(carry: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        _, inside, goal = carry
        return jnp.any(inside & (goal <= 0))

    def leave(carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        x, inside, goal = carry
        blocking = inside & (goal <= 0)
        way = jnp.where(blocking, x / jnp.where(x > goal, x - goal, 1), 1)  # fraction of the step until a weight is 0
        length = jnp.min(way)
        inside &= ~(blocking & (way <= length))
        x = jnp.where(inside, jnp.maximum(x + length * (goal - x), 0), 0)
        return x, inside, solve(inside)

    def settle(x: jax.Array, inside: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Moves a feasible x towards the solution on a set of tasks, and removes tasks from the set on the way."""
        _, inside, goal = jax.lax.while_loop(blocked, leave, (x, inside, solve(inside)))
        return goal, inside

    def gains(x: jax.Array) -> jax.Array:
        """Computes the decrease of the objective per unit of each weight; values within the rounding error become 0."""
        products = jnp.matmul(matrix, x, precision=jax.lax.Precision.HIGHEST)
        noise = 4 * tasks * eps * (jnp.abs(side) + jnp.abs(matrix) @ x)
        return jnp.where(side - products > noise, side - products, 0)

    def unfinished(carry: tuple[jax.Array, jax.Array, jax.Array, jax.Array]) -> jax.Array:
        x, inside, refused, count = carry
        return jnp.any((gains(x) > 0) & ~inside & ~refused) & (count < 4 * tasks)

    def enter(
        carry: tuple[jax.Array, jax.Array, jax.Array, jax.Array],
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        x, inside, refused, count = carry
        best = jnp.argmax(jnp.where(inside | refused, -1, gains(x)))
        moved, settled = settle(x, inside.at[best].set(True))
        # A task that leaves again at once would be the best one again, so it is refused until another task has entered.
        entered = settled[best]
        refused = jnp.where(entered, jnp.zeros_like(refused), refused.at[best].set(True))
        x, inside = jnp.where(entered, moved, x), jnp.where(entered, settled, inside)
        return x, inside, refused, count + 1

    none = jnp.zeros(tasks, bool)
    x, inside = settle(jnp.zeros_like(side), none if start is None else start)
    x, inside, _, _ = jax.lax.while_loop(unfinished, enter, (x, inside, none, jnp.zeros((), jnp.int32)))
    return x, inside
