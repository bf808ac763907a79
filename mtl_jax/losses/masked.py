"""Means over the valid elements of a batch."""

import jax
import jax.numpy as jnp


def masked_mean(values: jax.Array, valid: jax.Array) -> jax.Array:
    """Mean of `values` where `valid`; 0 where nothing is. Both have the same shape."""
    count = valid.sum()
    return jnp.where(valid, values, 0).sum() / jnp.maximum(count, 1).astype(values.dtype)
