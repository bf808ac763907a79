"""Depthwise convolution: every channel has a kernel of its own."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from flax.typing import Dtype

from mtl_jax.nn import isolate
from mtl_jax.nn.conv import check_map
from mtl_jax.nn.dtype import layer_dtype
from mtl_jax.nn.init import Initializer, initial_bias, torch_uniform
from mtl_jax.nn.padding import Margins, same_margins, symmetric_margins
from mtl_jax.nn.per_channel import per_channel

_SUMS = ContextVar("sums", default=False)


class DepthwiseConv(nnx.Module):
    """Depthwise 2-D convolution `[B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), C]`.

    The kernel is stored as `[kh, kw, 1, C]`.

    Args:
        features: Number of channels.
        kernel_size: Height and width of the kernels, an odd number.
        stride: Stride in both directions.
        same_padding: True to pad as TensorFlow's "SAME" does; False to pad by `kernel_size // 2` on every side.
        use_bias: True to add a bias.
        kernel_init: Initialiser of the kernels; the bias follows as in `Linear`.
        dtype: Computation dtype, as for `Conv`.
        rngs: Source of the initial weights.

    Raises:
        ValueError: The kernel size is even, or the input of a call is not `[B, H, W, C]`.
    """

    def __init__(
        self,
        features: int,
        kernel_size: int,
        *,
        stride: int = 1,
        same_padding: bool = False,
        use_bias: bool = False,
        kernel_init: Initializer = torch_uniform,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}; padding keeps an image's size for odd ones only")
        self.kernel = nnx.Param(kernel_init(rngs.params(), (kernel_size, kernel_size, 1, features)))
        self.bias = nnx.Param(initial_bias(kernel_init, features, kernel_size**2, rngs)) if use_bias else None
        self.stride = stride
        self.same_padding = same_padding
        self.dtype = layer_dtype(dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        check_map(x, self.kernel.shape[3])
        x, kernel = promote_dtype((x, self.kernel[...]), dtype=self.dtype)
        size = kernel.shape[0]
        margins = same_margins(x.shape[1:3], size, self.stride) if self.same_padding else symmetric_margins(size)
        y = convolve_depthwise(x, kernel, self.stride, margins)
        if self.bias is None:
            return y
        return y + per_channel(self.bias[...], y)


def convolve_depthwise(x: jax.Array, kernel: jax.Array, stride: int, margins: Margins) -> jax.Array:
    """Computes a depthwise convolution, on a CPU as a sum of one product for each tap of the kernel.

    XLA's convolution with groups takes 6 to 60 times as long on a CPU, forward and backward together.

    Args:
        x: `[B, H, W, C]` input.
        kernel: `[kh, kw, 1, C]` kernels.
        stride: Stride in both directions.
        margins: Number of zeros (before, after) the rows and the columns.

    Returns:
        `[B, H', W', C]`
    """
    if _SUMS.get() or (not isolate.fuses() and jax.default_backend() == "cpu"):
        return _sum_of_taps(x, kernel, stride, tuple(margins))
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=margins,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


@contextlib.contextmanager
def sums_of_taps(selected: bool = True) -> Iterator[None]:
    """Traces depthwise convolutions as sums inside this context, whatever devices this process has.

    Args:
        selected: True for programs that shall run on CPUs, too; False leaves the choice as it is.
    """
    token = _SUMS.set(selected or _SUMS.get())
    try:
        yield
    finally:
        _SUMS.reset(token)


@partial(isolate.isolated, static_argnums=(2, 3))
def _sum_of_taps(x: jax.Array, kernel: jax.Array, stride: int, margins: tuple[tuple[int, int], ...]) -> jax.Array:
    return _sums(x, kernel, stride, margins)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _sums(x: jax.Array, kernel: jax.Array, stride: int, margins: tuple[tuple[int, int], ...]) -> jax.Array:
    padded = jnp.pad(_accumulated(x), [(0, 0), *margins, (0, 0)])
    return _correlate(padded, kernel, stride).astype(x.dtype)


def _forward(
    x: jax.Array, kernel: jax.Array, stride: int, margins: tuple[tuple[int, int], ...]
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _sums(x, kernel, stride, margins), (x, kernel)


def _backward(
    stride: int, margins: tuple[tuple[int, int], ...], saved: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Computes the gradients. Those that JAX derives take longer to compile and one and a half times as long to run.

    The gradient of the input is a sum over the taps of the mirrored kernel, of g with zeros between its pixels.
    """
    x, kernel = saved
    g, reach = _accumulated(g), kernel.shape[0] - 1
    padded = jnp.pad(_accumulated(x), [(0, 0), *margins, (0, 0)])
    dkernel = jnp.stack([(window * g).sum((0, 1, 2)) for window in _windows(padded, kernel.shape[0], stride)])
    inner = [
        (reach - before, side + before - (steps - 1) * stride - 1, stride - 1)
        for (before, _), side, steps in zip(margins, x.shape[1:3], g.shape[1:3], strict=True)
    ]
    spread = jax.lax.pad(g, jnp.zeros((), g.dtype), [(0, 0, 0), *inner, (0, 0, 0)])
    dx = _correlate(spread, kernel[::-1, ::-1], 1)
    return dx.astype(x.dtype), dkernel.reshape(kernel.shape).astype(kernel.dtype)


_sums.defvjp(_forward, _backward)


def _correlate(padded: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Computes the sum of products for `[B, H, W, C]` maps that are padded already, in their dtype."""
    taps = kernel.astype(padded.dtype).reshape(-1, 1, 1, 1, kernel.shape[-1])
    windows = _windows(padded, kernel.shape[0], stride)
    first, *products = (window * tap for window, tap in zip(windows, taps, strict=True))
    return sum(products, start=first)


def _windows(padded: jax.Array, size: int, stride: int) -> Iterator[jax.Array]:
    """Yields, for each tap of a kernel row by row, the pixels of a padded map that it meets at every step."""
    batch, *sides, features = padded.shape
    rows, columns = ((side - size) // stride * stride for side in sides)  # offsets of the last step
    for i in range(size):
        for j in range(size):
            end = (batch, i + rows + 1, j + columns + 1, features)
            yield jax.lax.slice(padded, (0, i, j, 0), end, (1, stride, stride, 1))


def _accumulated(x: jax.Array) -> jax.Array:
    """Returns an array in the dtype that sums are computed in, at least float32."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
