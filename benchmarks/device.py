"""The device: its kind, and its measured peaks, to compare programs with."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.timing import call
from mtl_jax.runtime.allocator import describe_allocator

_REPEATS = 7


@dataclass(frozen=True)
class Peaks:
    """The measured peaks of a device.

    Attributes:
        flops: Floating-point operations per second of a large matrix product.
        bandwidth: Bytes per second, read and written together, of a copy.
    """

    flops: float
    bandwidth: float


def peaks(dtype: str) -> Peaks:
    """Measures the peaks of the default device; `dtype` is the dtype of the factors of the matrix product."""
    return Peaks(matmul_flops(dtype), bandwidth())


def matmul_flops(dtype: str, size: int = 0) -> float:
    """Measures the floating-point operations per second of a large matrix product.

    Args:
        dtype: Dtype of the factors; sums are float32.
        size: Number of rows and columns of the matrices; 0 = a size that suits the device.
    """
    size = size or (2048 if is_cpu() else 16384)
    x = jnp.ones((size, size), dtype)
    seconds = _median(jax.jit(lambda x: jnp.dot(x, x, preferred_element_type=jnp.float32)), x)
    return 2 * size**3 / seconds


def bandwidth(megabytes: int = 0) -> float:
    """Measures the bytes per second, read and written together, of adding a number to a large array.

    Args:
        megabytes: Size of the array in MiB; 0 = a size that suits the device.
    """
    megabytes = megabytes or (256 if is_cpu() else 1024)
    x = jnp.ones((megabytes * 2**20 // 4,), jnp.float32)
    return 2 * x.nbytes / _median(jax.jit(lambda x: x + 1), x)


def is_cpu() -> bool:
    """Returns True if programs run on the host's processor."""
    return jax.default_backend() == "cpu"


def precision(dtype: str) -> str:
    """Returns the precision of convolutions: accelerators round float32 factors to 10 bits (tf32), as PyTorch does."""
    return "tf32" if dtype == "float32" and not is_cpu() else dtype


def allocated_peak() -> int | None:
    """Returns the most bytes that JAX has held on the default device so far; None where they are not counted."""
    counted = jax.local_devices()[0].memory_stats()
    return counted["peak_bytes_in_use"] if counted else None


def describe() -> dict[str, Any]:
    """Returns the kind of device, the allocator and the versions of packages, on which measurements depend."""
    versions = {name: metadata.version(name) for name in ("jax", "jaxlib", "flax")}
    return {"device": jax.devices()[0].device_kind, "allocator": describe_allocator(), "versions": versions}


def _median(function: Callable[..., Any], *arguments: Any) -> float:
    jax.block_until_ready(function(*arguments))  # compiles
    return statistics.median(call(lambda: jax.block_until_ready(function(*arguments)))[0] for _ in range(_REPEATS))
