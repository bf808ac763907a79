"""Work on many items in several processes, results in order."""

import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import cv2

from mtl_jax import registry

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST = 16
_log = logging.getLogger(__name__)


def cpu_count() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_ordered(
    function: Callable[[Item], Result], items: Sequence[Item], *, num_workers: int | None = None, fewest: int = 2
) -> Iterator[Result]:
    """function(items[0]), function(items[1]), ... in this order, from worker processes if that pays.

    Args:
        function: pickles, as do items and results; its errors are raised here.
        items: what there is to do.
        num_workers: processes; 0 and 1 work in this one; None = one for each core, at most 16.
        fewest: with fewer items than this, starting processes costs more than it brings.
    """
    workers = min(cpu_count(), _MOST) if num_workers is None else num_workers
    done = 0
    if workers > 1 and len(items) >= fewest and not multiprocessing.current_process().daemon:
        # JAX may be running in this process, which a fork would not survive: workers are started afresh.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, context, initializer=init_worker, initargs=(registry.extensions(),))
        try:
            pending: deque[Future[Result]] = deque()
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= 4 * workers:  # bounds the memory when the caller is the slower side
                    yield pending.popleft().result()
                    done += 1
            while pending:
                yield pending.popleft().result()
                done += 1
        except BrokenProcessPool:
            _log.warning(
                "the worker processes died; the work continues in this one. Was memory short? A script that builds a "
                "data set at its top level needs `if __name__ == '__main__':`"
            )
        finally:
            pool.shutdown(cancel_futures=True)
    for item in items[done:]:
        yield function(item)


def init_worker(extensions: Sequence[str] = ()) -> None:
    """Readies a worker process: one thread, since the workers share the cores, and no life without its parent.

    Args:
        extensions: Modules that register tasks, data sets and so on, see `registry.load_extensions`.
    """
    registry.load_extensions(extensions)
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, too, which ends its workers
    # Nothing else ends the workers of a process that is killed.
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
