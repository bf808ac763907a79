"""Convolution and linear layer with torch's padding and initialisation."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from flax.typing import Dtype

from mtl_jax.nn.init import Initializer, torch_uniform


class Conv(nnx.Module):
    """2-D convolution `[B, H, W, in] -> [B, H', W', out]`, padded by `dilation * (kernel_size // 2)` on every side.

    Unlike "SAME" the padding is symmetric at stride 2 as well. The kernel is stored as `[kh, kw, in, out]`.

    Args:
        kernel_init: how the kernel is drawn; the bias is always torch's default.
        dtype: computation dtype; None computes in the promoted dtype of input and parameters.

    Raises:
        ValueError: the input is not `[B, H, W, in]`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        use_bias: bool = False,
        kernel_init: Initializer = torch_uniform,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        shape = (kernel_size, kernel_size, in_features, out_features)
        fan_in = math.prod(shape[:-1])
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape))
        self.bias = nnx.Param(torch_uniform(rngs.params(), (out_features,), fan_in)) if use_bias else None
        self.stride = stride
        self.dilation = dilation
        self.padding = dilation * (kernel_size // 2)
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        if x.ndim != 4 or x.shape[-1] != self.kernel.shape[2]:
            raise ValueError(
                f"a convolution of {self.kernel.shape[2]} channels got an input of shape {x.shape}; images and maps "
                "are [B, H, W, C], images with 3 channels"
            )
        x, kernel = promote_dtype((x, self.kernel[...]), dtype=self.dtype)
        if kernel.shape[:2] == (1, 1) and self.stride == 1:
            # The same product, but XLA's CPU convolution is several times slower in its backward pass.
            y = jnp.einsum("bhwi,io->bhwo", x, kernel[0, 0])
        else:
            y = jax.lax.conv_general_dilated(
                x,
                kernel,
                window_strides=(self.stride, self.stride),
                padding=[(self.padding, self.padding)] * 2,
                rhs_dilation=(self.dilation, self.dilation),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
        if self.bias is None:
            return y
        return y + self.bias[...].astype(y.dtype).reshape(1, 1, 1, -1)


class Linear(nnx.Module):
    """Affine map of the last axis, `[..., in] -> [..., out]`; kernel `[in, out]`."""

    def __init__(self, in_features: int, out_features: int, *, dtype: Dtype | None = None, rngs: nnx.Rngs):
        self.kernel = nnx.Param(torch_uniform(rngs.params(), (in_features, out_features)))
        self.bias = nnx.Param(torch_uniform(rngs.params(), (out_features,), in_features))
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        x, kernel, bias = promote_dtype((x, self.kernel[...], self.bias[...]), dtype=self.dtype)
        return x @ kernel + bias.reshape((1,) * (x.ndim - 1) + (-1,))
