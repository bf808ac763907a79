"""Compilation of loops that array operations cannot express."""

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function with Numba at its first call; the machine code is cached on disk if possible."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither the module's folder nor the user's cache folder can be written to
        return njit(nogil=True)(function)
