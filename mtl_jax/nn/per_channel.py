"""Vectors with a number for each channel, for arrays with more axes."""

import jax


def per_channel(vector: jax.Array, x: jax.Array) -> jax.Array:
    """Returns a vector `[C]` with the axes and in the dtype of an array `[..., C]`, so that both can be combined."""
    return vector.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
