"""Activations of networks for phones (arXiv 1801.04381, 1905.02244)."""

import jax
import jax.numpy as jnp
from flax import nnx


def relu6(x: jax.Array) -> jax.Array:
    """Computes min(max(x, 0), 6). Unlike that of `jax.nn.relu6`, the gradient at 0 is 0, as in torch."""
    return jnp.minimum(nnx.relu(x), 6)


def hard_sigmoid(x: jax.Array) -> jax.Array:
    """Computes relu6(x + 3) / 6 (arXiv 1905.02244, sec. 5.2)."""
    return relu6(x + 3) / 6


def hard_swish(x: jax.Array) -> jax.Array:
    """Computes x * relu6(x + 3) / 6 (arXiv 1905.02244, sec. 5.2)."""
    return x * hard_sigmoid(x)
