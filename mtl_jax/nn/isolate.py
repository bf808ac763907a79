"""Functions that XLA keeps as separate calls in programs for a CPU."""

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
    """Returns a function that is a separate call on a CPU, in the forward and in the backward pass.

    On other devices the result behaves like the function itself.

    On a CPU, XLA's fusion recomputes the gradient of a batch norm for every operation that reads it, pixel by pixel and
    in the order of the operation: a transposition for a matrix product or the phases of an interpolation. Arrays
    between separate calls are stored once. A GPU gains nothing, because matrix products are separate calls there
    already.

    Args:
        function: Function to separate.
        static_argnums: Positions of the static arguments, see `jax.jit`.
    """

    def body(*args: Any, **kwargs: Any) -> Result:
        # Without this mark, jitted functions of JAX inside this function would become separate calls, too.
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


def fuses() -> bool:
    """Returns True within `fused`, where the program that is traced may be for other devices than this process has."""
    return _FUSES.get()


@contextlib.contextmanager
def fused() -> Iterator[None]:
    """Disables separate calls for functions traced inside this context, whose programs are for other devices."""
    token = _FUSES.set(True)
    try:
        yield
    finally:
        _FUSES.reset(token)
