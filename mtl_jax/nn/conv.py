"""Convolution and linear layer with torch's padding and initialisation."""

import math
from collections.abc import Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from flax.typing import Dtype

from mtl_jax.nn.dtype import layer_dtype
from mtl_jax.nn.init import Initializer, initial_bias, torch_uniform
from mtl_jax.nn.isolate import isolated
from mtl_jax.nn.padding import Margins, same_margins, symmetric_margins
from mtl_jax.nn.per_channel import per_channel

# Below this share of products with the image, a convolution is computed as a sum over taps.
_DENSE = 2 / 3


class Conv(nnx.Module):
    """2-D convolution `[B, H, W, in] -> [B, H', W', out]`, padded by `dilation * (kernel_size // 2)` on every side.

    Unlike TensorFlow's "SAME" padding, this padding is symmetric at stride 2 too. The kernel is stored as
    `[kh, kw, in, out]`.

    Args:
        in_features: Number of input channels.
        out_features: Number of output channels.
        kernel_size: Height and width of the kernel, an odd number.
        stride: Stride in both directions.
        dilation: Dilation in both directions.
        same_padding: True to pad as "SAME" does (`mtl_jax.nn.padding.same_margins`).
        use_bias: True to add a bias.
        kernel_init: Initialiser of the kernel; the bias has torch's default.
        dtype: Computation dtype; None takes the dtype of `compute_dtype`, or else the promoted dtype of input and
            parameters.
        rngs: Source of the initial weights.

    Raises:
        ValueError: The kernel size is even, or the input of a call is not `[B, H, W, in]`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        same_padding: bool = False,
        use_bias: bool = False,
        kernel_init: Initializer = torch_uniform,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}; symmetric padding keeps an image's size for odd ones only")
        shape = (kernel_size, kernel_size, in_features, out_features)
        fan_in = math.prod(shape[:-1])
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape))
        self.bias = nnx.Param(torch_uniform(rngs.params(), (out_features,), fan_in)) if use_bias else None
        self.stride = stride
        self.dilation = dilation
        self.same_padding = same_padding
        self.dtype = layer_dtype(dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        check_map(x, self.kernel.shape[2])
        y = self._convolve(x)
        if self.bias is None:
            return y
        return y + per_channel(self.bias[...], y)

    def margins(self, size: Sequence[int]) -> Margins:
        """Returns the number of zeros (before, after) the rows and the columns of a map of this size."""
        side = self.kernel.shape[0]
        if self.same_padding:
            return same_margins(size, side, self.stride, self.dilation)
        return symmetric_margins(side, self.dilation)

    def _convolve(self, x: jax.Array) -> jax.Array:
        x, kernel = promote_dtype((x, self.kernel[...]), dtype=self.dtype)
        if kernel.shape[:2] == (1, 1) and self.stride == 1:
            # The same product, but XLA's CPU convolution is several times slower in its backward pass.
            return _pointwise(x, kernel[0, 0])
        if self.stride == 1 and overlap(kernel.shape[:2], self.dilation, x.shape[1:3]) < _DENSE:
            return convolve_overlaps(x, kernel, self.dilation)
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(self.stride, self.stride),
            padding=self.margins(x.shape[1:3]),
            rhs_dilation=(self.dilation, self.dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


class Linear(nnx.Module):
    """Affine map of the last axis, `[..., in] -> [..., out]`, with a kernel `[in, out]`.

    Args:
        in_features: Size of the last axis of the input.
        out_features: Size of the last axis of the output.
        use_bias: True to add a bias.
        kernel_init: Initialiser of the kernel. With torch's default the bias has torch's default too; with any other it
            starts at 0, as transformers do.
        dtype: Computation dtype, as for `Conv`.
        rngs: Source of the initial weights.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        use_bias: bool = True,
        kernel_init: Initializer = torch_uniform,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        self.kernel = nnx.Param(kernel_init(rngs.params(), (in_features, out_features)))
        self.bias = nnx.Param(initial_bias(kernel_init, out_features, in_features, rngs)) if use_bias else None
        self.dtype = layer_dtype(dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        x, kernel = promote_dtype((x, self.kernel[...]), dtype=self.dtype)
        y = x @ kernel
        if self.bias is None:
            return y
        return y + per_channel(self.bias[...], y)


def check_map(x: jax.Array, features: int) -> None:
    """Checks that the input of a convolution is `[B, H, W, features]`.

    Raises:
        ValueError: It is not.
    """
    if x.ndim != 4 or x.shape[-1] != features:
        raise ValueError(
            f"a convolution of {features} channels got an input of shape {x.shape}; images and maps are [B, H, W, C], "
            "images with 3 channels"
        )


def overlap(kernel_size: Sequence[int], dilation: int, size: Sequence[int]) -> float:
    """Returns the share of products of a padded convolution at stride 1 that involve the image and not the padding."""
    return math.prod(
        sum(max(0, side - abs(offset)) for offset in _offsets(taps, dilation)) / (taps * side)
        for taps, side in zip(kernel_size, size, strict=True)
    )


@isolated
def _pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jnp.einsum("bhwi,io->bhwo", x, kernel)


@partial(isolated, static_argnums=(2,))
def convolve_overlaps(x: jax.Array, kernel: jax.Array, dilation: int) -> jax.Array:
    """Computes a padded convolution at stride 1 as a sum of matrix products, one for each tap that meets the image.

    On maps of 30x40 a 3x3 convolution with dilation 24 meets padding in 72 % of its products, one with dilation 36 in
    87 %; `jax.lax.conv_general_dilated` computes them all.

    Args:
        x: `[B, H, W, in]` input.
        kernel: `[kh, kw, in, out]` kernel with odd kh and kw.
        dilation: Dilation in both directions.

    Returns:
        `[B, H, W, out]`
    """
    return _overlaps(x, kernel, dilation)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _overlaps(x: jax.Array, kernel: jax.Array, dilation: int) -> jax.Array:
    accumulator = jnp.promote_types(x.dtype, jnp.float32)
    zero = jnp.zeros((), accumulator)
    y = jnp.zeros((*x.shape[:3], kernel.shape[-1]), accumulator)
    for i, j, offset in _taps(x, kernel, dilation):
        product = jnp.einsum("bhwi,io->bhwo", _met(x, offset), kernel[i, j], preferred_element_type=accumulator)
        rows, columns = ((max(-side, 0), max(side, 0), 0) for side in offset)
        y += jax.lax.pad(product, zero, [(0, 0, 0), rows, columns, (0, 0, 0)])
    return y.astype(x.dtype)


def _overlaps_forward(x: jax.Array, kernel: jax.Array, dilation: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _overlaps(x, kernel, dilation), (x, kernel)


def _overlaps_backward(dilation: int, saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Computes the gradients in the dtype of x; JAX would derive float32 products and a sum of rounded parts."""
    x, kernel = saved
    dx = _overlaps(g, kernel[::-1, ::-1].swapaxes(2, 3), dilation)
    dkernel = jnp.zeros_like(kernel)
    for i, j, (down, right) in _taps(x, kernel, dilation):
        product = jnp.einsum("bhwi,bhwo->io", _met(x, (down, right)), _met(g, (-down, -right)))
        dkernel = dkernel.at[i, j].set(product)
    return dx, dkernel


_overlaps.defvjp(_overlaps_forward, _overlaps_backward)


def _taps(x: jax.Array, kernel: jax.Array, dilation: int) -> Iterator[tuple[int, int, tuple[int, int]]]:
    """Yields (row, column, offset in the image) of every tap that meets the image anywhere."""
    for i, down in enumerate(_offsets(kernel.shape[0], dilation)):
        for j, right in enumerate(_offsets(kernel.shape[1], dilation)):
            if abs(down) < x.shape[1] and abs(right) < x.shape[2]:
                yield i, j, (down, right)


def _met(x: jax.Array, offset: tuple[int, int]) -> jax.Array:
    """Returns the pixels that have another pixel at minus this (down, right) offset."""
    (down, right), (height, width) = offset, x.shape[1:3]
    return x[:, max(down, 0) : height + down, max(right, 0) : width + right]


def _offsets(taps: int, dilation: int) -> list[int]:
    return [dilation * (tap - taps // 2) for tap in range(taps)]
