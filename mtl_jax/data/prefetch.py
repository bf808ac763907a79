"""Getting things ready while others are being used."""

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def ahead(produce: Callable[[], Item], depth: int = 2) -> Generator[Item, None, None]:
    """produce(), produce(), ... until it raises StopIteration, each called in a thread before its result is asked for.

    Args:
        produce: for example takes the next batch and starts its copy to the devices; errors are raised to the user of
            the result they belong to.
        depth: results that wait at most, at least 1.

    Returns:
        An iterator; closing it waits for the call that is under way.
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
