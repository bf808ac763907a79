"""Compilation of loops that array operations cannot express."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit

_FUNCTIONS: list[Any] = []  # all functions that `compiled` has returned in this process


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function with Numba at its first call; the machine code is cached on disk if possible."""
    try:
        dispatcher = njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither the module's folder nor the user's cache folder can be written to
        dispatcher = njit(nogil=True)(function)
    _FUNCTIONS.append(dispatcher)
    return dispatcher


def is_ready(functions: list[Any] = _FUNCTIONS) -> bool:
    """Returns True if all functions are compiled in this process or on the disk, newer than their sources."""
    return all(bool(function.signatures) or _is_stored(function) for function in functions)


def _is_stored(function: Any) -> bool:
    if (folder := function.stats.cache_path) is None:
        return False
    code = function.py_func.__code__
    indices = Path(folder).glob(f"*.{function.py_func.__qualname__}-{code.co_firstlineno}.*.nbi")
    return any(index.stat().st_mtime >= Path(code.co_filename).stat().st_mtime for index in indices)
