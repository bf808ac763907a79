"""Preparation of items in a thread while earlier items are in use."""

import logging
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

Item = TypeVar("Item")
_PATIENCE_SECONDS = 120.0

logger = logging.getLogger(__name__)


def ahead(
    produce: Callable[[], Item], depth: int = 2, *, what: str = "item", patience: float = _PATIENCE_SECONDS
) -> Generator[Item, None, None]:
    """Yields produce(), produce(), ..., called ahead of time in a thread, until it raises StopIteration.

    Args:
        produce: Function that makes the next item, for example takes the next batch and starts its copy to the devices.
            Its exceptions are raised when the item is requested.
        depth: Largest number of items that wait for their use, at least 1.
        what: Description of an item, for the warning that none has come for a long time.
        patience: Seconds without an item before the first warning; the next ones come after twice the time each.

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
                item = _wait(waiting.popleft(), what, patience)
            except StopIteration:
                return
            yield item
    finally:
        pool.shutdown(cancel_futures=True)


def _wait(future: Future[Item], what: str, patience: float) -> Item:
    waited, next_warning = 0.0, patience
    while not wait([future], timeout=next_warning - waited).done:
        waited, next_warning = next_warning, 2 * next_warning
        logger.warning("has waited %g seconds for the next %s", waited, what)
    return future.result()
