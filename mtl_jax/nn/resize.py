"""Bilinear interpolation as torch's, without antialiasing.

Pixels are areas (`align_corners=False`: half-pixel centres, edges clamped), but for `double_aligned`.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.nn.isolate import isolated


def resize_bilinear(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Resizes `[B, H, W, C] -> [B, *size, C]` bilinearly, and returns the input itself if it has the size already.

    Where both sides grow by whole factors, which is everywhere but at odd sizes, the pixels of each phase are a fixed
    mixture of two neighbours. `jax.image.resize` multiplies with matrices that are mostly zero; on a CPU, forward and
    backward together, it takes two and a half to five times as long.
    """
    height, width = x.shape[1:3]
    if (height, width) == tuple(size):
        return x
    whole = size[0] % height == 0 and size[1] % width == 0
    return (_by_whole_factors if whole else _by_matrices)(x, (size[0], size[1]))


@partial(isolated, static_argnums=(1,))
def _by_whole_factors(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    y = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    y = _enlarge(_enlarge(y, 1, size[0] // x.shape[1]), 2, size[1] // x.shape[2])
    return y.astype(x.dtype)


@partial(isolated, static_argnums=(1,))
def _by_matrices(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    return jax.image.resize(x, (x.shape[0], *size, x.shape[3]), "bilinear", antialias=False)


BILINEAR = (_by_whole_factors.__name__, _by_matrices.__name__)  # jitted functions that resize, for ONNX export


def _enlarge(x: jax.Array, axis: int, factor: int) -> jax.Array:
    """Interpolates along an axis; output `factor * i + p` lies `(p + 1/2) / factor - 1/2` beside input `i`."""
    if factor == 1:
        return x
    before, after = _neighbours(x, axis)
    phases = []
    for phase in range(factor):
        offset = (phase + 0.5) / factor - 0.5
        neighbour = before if offset < 0 else after
        phases.append((1 - abs(offset)) * x + abs(offset) * neighbour)
    shape = (*x.shape[:axis], x.shape[axis] * factor, *x.shape[axis + 1 :])
    return jnp.stack(phases, axis + 1).reshape(shape)


def resize_like(x: jax.Array, reference: jax.Array) -> jax.Array:
    """Resizes bilinearly to the height and width of `reference`, `[B, H, W, C]`."""
    return resize_bilinear(x, (reference.shape[1], reference.shape[2]))


@isolated
def double_aligned(x: jax.Array) -> jax.Array:
    """Doubles height and width bilinearly as torch's `align_corners=True`: `[B, H, W, C] -> [B, 2H, 2W, C]`.

    Pixels are points here: the corners of the result are those of the input.
    """
    y = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return _double(_double(y, 1), 2).astype(x.dtype)


ALIGNED = double_aligned.__name__  # jitted function that doubles, for ONNX export


def _double(x: jax.Array, axis: int) -> jax.Array:
    """Doubles an axis of length n: output i lies at i * (n - 1) / (2n - 1) in the input.

    That is k / (2n - 1) before input k for i = 2k, and (n - 1 - k) / (2n - 1) after it for i = 2k + 1.
    """
    length = x.shape[axis]
    shape = [length if each == axis else 1 for each in range(x.ndim)]
    distances = np.arange(length) / (2 * length - 1)
    backward, forward = (jnp.asarray(each.reshape(shape), x.dtype) for each in (distances, distances[::-1]))
    before, after = _neighbours(x, axis)
    phases = [(1 - backward) * x + backward * before, (1 - forward) * x + forward * after]
    return jnp.stack(phases, axis + 1).reshape(*x.shape[:axis], 2 * length, *x.shape[axis + 1 :])


def _neighbours(x: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """Returns the element before and the one after each element of an axis; those at the ends are clamped."""
    length = x.shape[axis]
    first, last = jax.lax.slice_in_dim(x, 0, 1, axis=axis), jax.lax.slice_in_dim(x, length - 1, length, axis=axis)
    before = jnp.concatenate([first, jax.lax.slice_in_dim(x, 0, length - 1, axis=axis)], axis)
    after = jnp.concatenate([jax.lax.slice_in_dim(x, 1, length, axis=axis), last], axis)
    return before, after
