"""Zero padding of maps."""

import jax
import jax.numpy as jnp


def pad_to_multiples(x: jax.Array, multiples: tuple[int, int]) -> jax.Array:
    """Pads `[B, H, W, C]` with zeros below and to the right, to the next multiples of (rows, columns)."""
    rows, columns = (-length % multiple for length, multiple in zip(x.shape[1:3], multiples, strict=True))
    return jnp.pad(x, [(0, 0), (0, rows), (0, columns), (0, 0)]) if rows or columns else x
