"""Transposed convolutions that enlarge a map by a whole factor."""

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


class DoublingConv(nnx.Module):
    """Transposed convolution 3x3 that doubles the sides of a map: `[B, H, W, in] -> [B, 2H, 2W, out]`.

    It is torch's with stride 2, padding 1 and output padding 1. Rows 2i of the result have the middle row of the kernel
    times row i of the map; rows 2i + 1 have the last one times row i and the first one times row i + 1. The kernel is
    stored as `[3, 3, in, out]`.

    Args:
        in_features: Number of input channels.
        out_features: Number of output channels.
        dtype: Computation dtype, as for `Conv`.
        rngs: Source of the initial weights.
    """

    _TAPS = (((0, 1),), ((0, 2), (1, 0)))  # of even and of odd rows: offsets in the map, and rows of the kernel

    def __init__(self, in_features: int, out_features: int, *, dtype: Dtype | None = None, rngs: nnx.Rngs):
        fan_in = 9 * out_features  # what torch takes for it
        self.kernel = nnx.Param(torch_uniform(rngs.params(), (3, 3, in_features, out_features), fan_in))
        self.bias = nnx.Param(torch_uniform(rngs.params(), (out_features,), fan_in))
        self.dtype = layer_dtype(dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        x, kernel = promote_dtype((x, self.kernel[...]), dtype=self.dtype)
        batch, height, width, _ = x.shape
        padded = jnp.pad(x, [(0, 0), (0, 1), (0, 1), (0, 0)])

        def phase(vertical: int, horizontal: int) -> jax.Array:
            products = [
                padded[:, down : down + height, right : right + width] @ kernel[row, column]
                for down, row in self._TAPS[vertical]
                for right, column in self._TAPS[horizontal]
            ]
            return sum(products[1:], products[0])

        rows = [jnp.stack([phase(vertical, horizontal) for horizontal in (0, 1)], axis=3) for vertical in (0, 1)]
        y = jnp.stack(rows, axis=2).reshape(batch, 2 * height, 2 * width, kernel.shape[-1])
        return y + per_channel(self.bias[...], y)
