"""What the device can do at best, to compare programs with."""

import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mtl_jax.benchmark.timing import call

_REPEATS = 7


def matmul_flops(dtype: str, size: int = 0) -> float:
    """Floating-point operations a second of a large matrix product.

    Args:
        dtype: of the factors; sums are float32.
        size: of the square matrices; by default what takes a moment on this kind of device.
    """
    size = size or (2048 if jax.default_backend() == "cpu" else 16384)
    x = jnp.ones((size, size), dtype)
    seconds = _median(jax.jit(lambda x: jnp.dot(x, x, preferred_element_type=jnp.float32)), x)
    return 2 * size**3 / seconds


def bandwidth(megabytes: int = 256) -> float:
    """Bytes a second, read and written together, of adding a number to a large array."""
    x = jnp.ones((megabytes * 2**20 // 4,), jnp.float32)
    return 2 * x.nbytes / _median(jax.jit(lambda x: x + 1), x)


def _median(function: Callable[..., Any], *arguments: Any) -> float:
    jax.block_until_ready(function(*arguments))  # compiles
    return statistics.median(call(lambda: jax.block_until_ready(function(*arguments)))[0] for _ in range(_REPEATS))
