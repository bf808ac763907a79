"""Transposed convolution that enlarges a map by a whole factor."""

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from flax.typing import Dtype

from mtl_jax.nn.dtype import layer_dtype
from mtl_jax.nn.init import torch_uniform
from mtl_jax.nn.per_channel import per_channel


class TransposedConv(nnx.Module):
    """Transposed convolution whose kernel is as large as its stride: `[B, H, W, in] -> [B, kH, kW, out]`.

    Every pixel becomes k x k pixels of its own. The kernel is stored as `[k, k, in, out]`.

    Args:
        in_features: Number of input channels.
        out_features: Number of output channels.
        factor: Factor k.
        dtype: Computation dtype, as for `Conv`.
        rngs: Source of the initial weights.
    """

    def __init__(self, in_features: int, out_features: int, factor: int, *, dtype: Dtype | None = None, rngs: nnx.Rngs):
        fan_in = factor * factor * out_features  # what torch takes for it
        self.kernel = nnx.Param(torch_uniform(rngs.params(), (factor, factor, in_features, out_features), fan_in))
        self.bias = nnx.Param(torch_uniform(rngs.params(), (out_features,), fan_in))
        self.dtype = layer_dtype(dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        x, kernel = promote_dtype((x, self.kernel[...]), dtype=self.dtype)
        y = jnp.einsum("bhwi,klio->bhkwlo", x, kernel)
        y = y + per_channel(self.bias[...], y)
        factor, _, _, features = kernel.shape
        return y.reshape(x.shape[0], factor * x.shape[1], factor * x.shape[2], features)
