"""Position embeddings of patch tokens, resized to the grid of an image."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

Resize = Callable[[jax.Array, tuple[int, int]], jax.Array]

_A = -0.75  # of the cubic kernel of torch's interpolation without antialiasing
_OFFSET = 0.1  # that DINOv2 adds to the size


def resize_antialiased(grid: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Resizes bicubically with antialiasing, as timm does, and DINOv2 with registers.

    Args:
        grid: `[1, M, M', C]` embeddings of the grid that was trained.
        size: (rows, columns) of the grid of an image.

    Returns:
        `[1, *size, C]`
    """
    if grid.shape[1:3] == size:
        return grid
    return jax.image.resize(grid, (1, *size, grid.shape[3]), "cubic", antialias=True)


def resize_cubic(grid: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Resizes bicubically without antialiasing, as timm did before version 0.6, and InvPT's code with it.

    Args:
        grid: `[1, M, M', C]` embeddings of the grid that was trained.
        size: (rows, columns) of the grid of an image.

    Returns:
        `[1, *size, C]`
    """
    return _resize_by_taps(grid, size, 0.0)


def resize_with_offset(grid: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Resizes as DINOv2 without registers: bicubically, without antialiasing, by the factor (size + 0.1) / M.

    The offset shifts the embeddings slightly; the published weights were used with it. A grid of the trained size
    stays as it is.

    Args:
        grid: `[1, M, M, C]` embeddings of the grid that was trained.
        size: (rows, columns) of the grid of an image.

    Returns:
        `[1, *size, C]`
    """
    return _resize_by_taps(grid, size, _OFFSET)


def _resize_by_taps(grid: jax.Array, size: tuple[int, int], offset: float) -> jax.Array:
    if grid.shape[1:3] == size:
        return grid
    dtype = jnp.promote_types(grid.dtype, jnp.float32)
    sides = zip(size, grid.shape[1:3], strict=True)
    rows, columns = (jnp.asarray(_cubic_matrix(wanted, trained, offset), dtype) for wanted, trained in sides)
    resized = jnp.einsum("yh,xw,bhwc->byxc", rows, columns, grid.astype(dtype), precision="highest")
    return resized.astype(grid.dtype)


def _cubic_matrix(wanted: int, trained: int, offset: float) -> np.ndarray:
    """Returns the float64 matrix `[wanted, trained]` of four-tap interpolation along an axis, clamped at its ends."""
    source = (np.arange(wanted) + 0.5) * trained / (wanted + offset) - 0.5
    first = np.floor(source).astype(int) - 1
    matrix = np.zeros((wanted, trained))
    for tap in range(4):
        weights = _keys(source - (first + tap))
        np.add.at(matrix, (np.arange(wanted), np.clip(first + tap, 0, trained - 1)), weights)
    return matrix


def _keys(x: np.ndarray) -> np.ndarray:
    """Returns the values of Keys' cubic kernel."""
    x = np.abs(x)
    near = (_A + 2) * x**3 - (_A + 3) * x**2 + 1
    far = _A * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
