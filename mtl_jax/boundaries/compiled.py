"""Compiling the loops that no array operation expresses."""

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled at its first call; the result is kept on disk where there is a place to write to."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither beside the module nor in the user's cache folder: a read-only installation
        return njit(nogil=True)(function)
