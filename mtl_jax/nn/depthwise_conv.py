"""Depthwise convolution."""

import jax
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from flax.typing import Dtype

from mtl_jax.nn.conv import check_map
from mtl_jax.nn.dtype import layer_dtype
from mtl_jax.nn.init import Initializer, initial_bias, torch_uniform
from mtl_jax.nn.per_channel import per_channel


class DepthwiseConv(nnx.Module):
    """2-D convolution of each channel by itself, padded by `kernel_size // 2`.

    `[B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), C]`. The kernel is stored as `[kh, kw, 1, C]`.

    Args:
        features: Number of channels C.
        kernel_size: Height and width of the kernel, an odd number.
        stride: Stride in both directions.
        use_bias: True to add a bias.
        kernel_init: Initialiser of the kernel; the bias follows as in `Linear`.
        dtype: Computation dtype, as for `Conv`.
        rngs: Source of the initial weights.

    Raises:
        ValueError: The input of a call is not `[B, H, W, C]`.
    """

    def __init__(
        self,
        features: int,
        kernel_size: int,
        *,
        stride: int = 1,
        use_bias: bool = True,
        kernel_init: Initializer = torch_uniform,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        self.kernel = nnx.Param(kernel_init(rngs.params(), (kernel_size, kernel_size, 1, features)))
        self.bias = nnx.Param(initial_bias(kernel_init, features, kernel_size**2, rngs)) if use_bias else None
        self.stride = stride
        self.padding = kernel_size // 2
        self.dtype = layer_dtype(dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        check_map(x, self.kernel.shape[3])
        x, kernel = promote_dtype((x, self.kernel[...]), dtype=self.dtype)
        y = jax.lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(self.stride, self.stride),
            padding=[(self.padding, self.padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=x.shape[-1],
        )
        return y if self.bias is None else y + per_channel(self.bias[...], y)
