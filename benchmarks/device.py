"""What the device is and can do at best, to compare programs with."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.timing import call

_REPEATS = 7


@dataclass(frozen=True)
class Peaks:
    """What a device was measured to reach.

    Attributes:
        flops: floating-point operations a second of a large matrix product.
        bandwidth: bytes a second, read and written together, of a copy.
    """

    flops: float
    bandwidth: float


def peaks(dtype: str) -> Peaks:
    """Measures the default device's; `dtype` is that of the factors."""
    return Peaks(matmul_flops(dtype), bandwidth())


def matmul_flops(dtype: str, size: int = 0) -> float:
    """Floating-point operations a second of a large matrix product.

    Args:
        dtype: of the factors; sums are float32.
        size: of the square matrices; by default what takes a moment on this kind of device.
    """
    size = size or (2048 if is_cpu() else 16384)
    x = jnp.ones((size, size), dtype)
    seconds = _median(jax.jit(lambda x: jnp.dot(x, x, preferred_element_type=jnp.float32)), x)
    return 2 * size**3 / seconds


def bandwidth(megabytes: int = 0) -> float:
    """Bytes a second, read and written together, of adding a number to a large array.

    Args:
        megabytes: size of the array; by default what takes a moment on this kind of device.
    """
    megabytes = megabytes or (256 if is_cpu() else 1024)
    x = jnp.ones((megabytes * 2**20 // 4,), jnp.float32)
    return 2 * x.nbytes / _median(jax.jit(lambda x: x + 1), x)


def is_cpu() -> bool:
    """Whether programs run on the host's processor."""
    return jax.default_backend() == "cpu"


def precision(dtype: str) -> str:
    """In what convolutions multiply: accelerators round float32 factors to 10 bits (tf32), in PyTorch as here."""
    return "tf32" if dtype == "float32" and not is_cpu() else dtype


def allocated_peak() -> int | None:
    """Most bytes that jax has held on the default device so far, all programs together; None where nobody counts."""
    counted = jax.local_devices()[0].memory_stats()
    return counted["peak_bytes_in_use"] if counted else None


def describe() -> dict[str, Any]:
    """What numbers depend on: kind of device, and versions."""
    versions = {name: metadata.version(name) for name in ("jax", "jaxlib", "flax")}
    return {"device": jax.devices()[0].device_kind, "versions": versions}


def _median(function: Callable[..., Any], *arguments: Any) -> float:
    jax.block_until_ready(function(*arguments))  # compiles
    return statistics.median(call(lambda: jax.block_until_ready(function(*arguments)))[0] for _ in range(_REPEATS))
