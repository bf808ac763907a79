"""Squeeze-and-excitation: attention to channels."""

import jax
from flax import nnx

from mtl_jax.nn.conv import Linear
from mtl_jax.nn.sequential import Sequential


class SqueezeExcite(nnx.Module):
    """Squeeze-and-excitation: x * sigmoid(W2 relu(W1 mean_hw(x))) (arXiv 1709.01507, eq. 2-4).

    Args:
        features: Number of channels of the input.
        reduction: The hidden layer has `features // reduction` units.
        rngs: Source of the initial weights.

    Raises:
        ValueError: The hidden layer would have no unit.
    """

    def __init__(self, features: int, *, reduction: int = 16, rngs: nnx.Rngs):
        hidden = features // reduction
        if hidden < 1:
            raise ValueError(f"squeeze-and-excitation of {features} channels by {reduction} leaves no hidden unit")
        self.squeeze = Sequential([Linear(features, hidden, rngs=rngs), nnx.relu, Linear(hidden, features, rngs=rngs)])

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C] -> [B, H, W, C]`"""
        return x * nnx.sigmoid(self.squeeze(x.mean((1, 2))))[:, None, None, :]
