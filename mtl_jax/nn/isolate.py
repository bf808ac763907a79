"""Computations that a program for the CPU keeps apart from what surrounds them."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import jax
from jax.experimental.xla_metadata import set_xla_metadata

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_FUSES = ContextVar("fuses", default=False)


def isolated(
    function: Callable[Arguments, Result], static_argnums: tuple[int, ...] = ()
) -> Callable[Arguments, Result]:
    """The function as a call of its own, forward and backward, on a CPU; the function itself elsewhere.

    XLA's fusion for the CPU computes the gradient of a batch norm anew for every reader of it, pixel by pixel in
    whatever order the reader wants: a transposition for a matrix product or the phases of an interpolation. Between
    calls everything is stored once. On a GPU there is nothing to gain, there products are calls already.
    """

    def body(*args: Any, **kwargs: Any) -> Result:
        # Functions of jax that are jitted themselves would be kept apart, too, inside this one.
        with _marked("true"):
            return function(*args, **kwargs)

    compiled: Any = jax.jit(functools.wraps(function)(body), static_argnums=static_argnums)

    @functools.wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with _marked("false"):
            return compiled(*args, **kwargs)

    return call


def _marked(inlineable: str) -> contextlib.AbstractContextManager[Any]:
    if _FUSES.get() or jax.default_backend() != "cpu":
        return contextlib.nullcontext()
    return set_xla_metadata(inlineable=inlineable)


@contextlib.contextmanager
def fused() -> Iterator[None]:
    """What is traced in here is for other devices than the one that traces it: nothing is kept apart."""
    token = _FUSES.set(True)
    try:
        yield
    finally:
        _FUSES.reset(token)
