"""Steps that say in the log when they are compiled, which takes up to minutes for a large network."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

_SERVED = "/jax/compilation_cache/cache_hits"  # what JAX records when the cache of compiled programs has a program

logger = logging.getLogger(__name__)


def announced(
    step: Callable[..., Any], what: str, clock: Callable[[], float] = time.perf_counter
) -> Callable[..., Any]:
    """Returns a step whose first call says in the log that it is compiled, and afterwards how long that took.

    Args:
        step: Function of `jax.jit`. Its first call compiles it.
        what: Name of the step for the log, for example "the training step".
        clock: Function that returns a time in seconds.
    """
    compiled = False

    def call(*arguments: Any) -> Any:
        nonlocal compiled
        if compiled:
            return step(*arguments)
        logger.info("compiling %s ...", what)
        began = clock()
        with _programs_from_cache() as served:
            results = step(*arguments)
        compiled = True
        source = "was read from the cache of compiled programs" if served else "is compiled"
        logger.info("%s %s (%.0f s)", what, source, clock() - began)
        return results

    return call


@contextlib.contextmanager
def _programs_from_cache() -> Iterator[list[str]]:
    """Collects, in the list that it returns, an entry for each program that JAX reads from its cache."""
    served: list[str] = []

    def listen(event: str, **_: Any) -> None:
        if event == _SERVED:
            served.append(event)

    jax.monitoring.register_event_listener(listen)
    try:
        yield served
    finally:
        jax.monitoring.unregister_event_listener(listen)
