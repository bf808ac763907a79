"""Worker processes for work on many items, with results in order."""

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
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_ordered(
    function: Callable[[Item], Result], items: Sequence[Item], *, num_workers: int | None = None, fewest: int = 2
) -> Iterator[Result]:
    """Yields function(items[0]), function(items[1]), ... in this order, computed in worker processes.

    Exceptions of the function are raised here.

    Args:
        function: Function to call. Function, items and results must pickle.
        items: Arguments of the calls.
        num_workers: Number of worker processes. 0 and 1 mean that this process does the work, and None means one for
            each core, at most 16.
        fewest: Least number of items for which worker processes are started.
    """
    workers = min(cpu_count(), _MOST) if num_workers is None else num_workers
    done = 0
    if workers > 1 and len(items) >= fewest and not multiprocessing.current_process().daemon:
        # A process in which JAX runs must not be forked, so workers are spawned.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, context, initializer=init_worker, initargs=(registry.extensions(),))
        try:
            pending: deque[Future[Result]] = deque()
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= 4 * workers:  # bounds the memory if the caller is slower than the workers
                    yield pending.popleft().result()
                    done += 1
            while pending:
                yield pending.popleft().result()
                done += 1
        except BrokenProcessPool:
            _log.warning(
                "the worker processes died; the work continues in this process. Memory may have been short. A script "
                "that builds a data set at its top level needs `if __name__ == '__main__':`"
            )
        finally:
            pool.shutdown(cancel_futures=True)
    for item in items[done:]:
        yield function(item)


def init_worker(extensions: Sequence[str] = ()) -> None:
    """Prepares a worker process: OpenCV uses one thread, and the worker ends with its parent process.

    Args:
        extensions: Modules that register tasks, data sets and so on, see `registry.load_extensions`.
    """
    registry.load_extensions(extensions)
    cv2.setNumThreads(1)  # the workers share the cores
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C also reaches the parent, which ends its workers
    # Without this thread, the workers would outlive a parent that is killed.
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
