"""The allocator of the C library, which the memory of XLA's programs comes from on a CPU."""

import ctypes
import os
from collections.abc import Mapping

VARIABLE = "MTL_JAX_ALLOCATOR"
SYSTEM = "system"

# The parameters of glibc's mallopt, from malloc.h.
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -2, -3, -4, -8
_KEEP = {
    MMAP_MAX: 0,  # no block gets a mapping of its own, which would be unmapped when the block is freed
    ARENA_MAX: 1,  # what one thread has freed, every other thread can use
    TRIM_THRESHOLD: 2**31 - 1,  # freed memory stays with the process
    TOP_PAD: 64 << 20,
}
_tuned = False  # by `tune_allocator`


def tune_allocator() -> bool:
    """Makes glibc keep freed memory for the next allocation, which makes training on a CPU faster.

    XLA allocates the temporary memory of a program at each call, hundreds of megabytes for a training step. By default
    glibc asks the system for this memory anew, and the system clears each page when it is first touched. The price is
    that a process keeps the most memory that it has ever needed.

    Call the function at the start of a program, before JAX computes anything. All scripts of this library do. It does
    nothing where the C library is not glibc, or where the environment variable MTL_JAX_ALLOCATOR is "system".

    Returns:
        True if the allocator was tuned.

    Raises:
        ValueError: MTL_JAX_ALLOCATOR has another value.
    """
    if (value := os.environ.get(VARIABLE, "")) not in ("", SYSTEM):
        raise ValueError(f"{VARIABLE} is {value!r}; it may be {SYSTEM!r}, or not be set")
    global _tuned
    _tuned = not value and set_options(_KEEP)
    return _tuned


def describe_allocator() -> str:
    """Returns how this process has set the allocator, on which measured times depend.

    An allocator that LD_PRELOAD puts in the place of glibc's is not noticed.
    """
    return "glibc, keeps freed memory" if _tuned else "as the system sets it"


def set_options(options: Mapping[int, int]) -> bool:
    """Sets parameters of glibc's allocator for this process.

    Args:
        options: {parameter of mallopt: value}.

    Returns:
        True if all were set; False without glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    return mallopt is not None and all(mallopt(parameter, value) for parameter, value in options.items())
