"""Layer normalisation."""

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from mtl_jax.nn.dtype import layer_dtype
from mtl_jax.nn.per_channel import per_channel


class LayerNorm(nnx.Module):
    """Layer normalisation over the last axis (arXiv 1607.06450), with the biased variance, as torch computes it.

    Statistics are at least float32 whatever the computation dtype.

    Args:
        features: Size of the last axis.
        epsilon: Number that is added to the variance.
        dtype: Dtype of the result; None takes the dtype of `compute_dtype`, or else the promoted dtype of input and
            parameters.
    """

    def __init__(self, features: int, *, epsilon: float, dtype: Dtype | None = None):
        self.scale = nnx.Param(jnp.ones((features,)))
        self.bias = nnx.Param(jnp.zeros((features,)))
        self.epsilon = epsilon
        self.dtype = layer_dtype(dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[..., C] -> [..., C]`"""
        dtype = jnp.promote_types(x.dtype, self.scale.dtype)
        centred = x.astype(dtype) - x.astype(dtype).mean(-1, keepdims=True)
        factor = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + self.epsilon)
        y = centred * factor * per_channel(self.scale[...], centred) + per_channel(self.bias[...], centred)
        return y.astype(self.dtype or dtype)
