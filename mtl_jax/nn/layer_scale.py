"""Layer scale."""

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_jax.nn.per_channel import per_channel


class LayerScale(nnx.Module):
    """A learned factor for each channel of a residual branch (arXiv 2103.17239, sec. 2.1): `[..., C] -> [..., C]`.

    Args:
        features: Number of channels C.
        value: Initial value of all factors.
    """

    def __init__(self, features: int, value: float):
        self.gamma = nnx.Param(jnp.full((features,), value, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * per_channel(self.gamma[...], x)
