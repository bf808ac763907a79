"""Preparation of items in a thread while earlier items are in use."""

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def ahead(produce: Callable[[], Item], depth: int = 2) -> Generator[Item, None, None]:
    """Yields produce(), produce(), ..., called ahead of time in a thread, until it raises StopIteration.

    Args:
        produce: Function that makes the next item, for example takes the next batch and starts its copy to the devices.
            Its exceptions are raised when the item is requested.
        depth: Largest number of items that wait for their use, at least 1.

    Returns:
        An iterator. Closing it waits for the end of the current call.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")  # a single thread: the calls keep their order
    waiting: deque[Future[Item]] = deque()
    try:
        while True:
            while len(waiting) < depth:
                waiting.append(pool.submit(produce))
            try:
                item = waiting.popleft().result()
            except StopIteration:
                return
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
