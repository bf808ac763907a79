"""Rotary position embedding of the tokens of an image (arXiv 2104.09864; for images as in DINOv3, arXiv 2508.10104)."""

import jax
import jax.numpy as jnp
import numpy as np

BASE = 100.0  # ratio of the longest period to the shortest, nearly


def angles(height: int, width: int, head_features: int) -> np.ndarray:
    """Returns the angles by which the channels of the tokens of a grid turn.

    Coordinates run from -1 to 1 over the image, whatever its size. A quarter of the channels turns with the row and a
    quarter with the column, at periods from 1 to nearly 100; the other half repeats the first.

    Args:
        height: Number of rows of the grid.
        width: Number of columns.
        head_features: Number of channels D of an attention head, a multiple of 4.

    Returns:
        float64 `[height * width, D]`, row by row.
    """
    if head_features % 4:
        raise ValueError(f"a rotary embedding turns pairs by rows and by columns; {head_features} channels do not do")
    periods = BASE ** (np.arange(head_features // 4) / (head_features // 4))
    rows, columns = (2 * (np.arange(side) + 0.5) / side - 1 for side in (height, width))
    grid = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2, 1)
    half = (2 * np.pi * grid / periods).reshape(height * width, -1)
    return np.concatenate([half, half], axis=-1)


def rotate(x: jax.Array, angles: np.ndarray | jax.Array) -> jax.Array:
    """Turns the last tokens of a sequence; the tokens before them, which have no place in the image, stay.

    Args:
        x: `[B, N, heads, D]` queries or keys.
        angles: `[M, D]` angles of the last M tokens.

    Returns:
        `[B, N, heads, D]`
    """
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    prefix, tokens = x[:, : x.shape[1] - len(angles)], x[:, x.shape[1] - len(angles) :].astype(dtype)
    first, second = jnp.split(tokens, 2, axis=-1)
    turns = jnp.asarray(angles, dtype)[None, :, None, :]
    turned = tokens * jnp.cos(turns) + jnp.concatenate([-second, first], axis=-1) * jnp.sin(turns)
    return jnp.concatenate([prefix, turned.astype(x.dtype)], axis=1)
