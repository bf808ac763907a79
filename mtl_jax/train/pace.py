"""The speed of training steps, and the time that is left."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator

_SECONDS = 60.0  # the speed is that of the last minute,
_LEAST = 20  # and of 20 steps at least


class Pace:
    """Measures the speed of training steps without what lies between them: compilation and evaluation.

    The speed is known once two steps are finished. What comes before the first finished step, which includes its
    compilation, does not count.

    Args:
        clock: Function that returns a time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self._clock = clock
        self._paused = 0.0
        self._finished: deque[tuple[int, float]] = deque()  # (step, time without pauses at which it was finished)

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Leaves out the time that the `with` block takes."""
        began = self._clock()
        try:
            yield
        finally:
            self._paused += self._clock() - began

    def finished(self, step: int) -> None:
        """Notes that a step and all steps before it are finished."""
        if self._finished and step <= self._finished[-1][0]:
            return
        now = self._clock() - self._paused
        self._finished.append((step, now))
        while (
            len(self._finished) > 2 and step - self._finished[1][0] >= _LEAST and now - self._finished[1][1] >= _SECONDS
        ):
            self._finished.popleft()

    @property
    def seconds_per_step(self) -> float | None:
        """Seconds that a step takes; None before two steps are finished."""
        if len(self._finished) < 2:
            return None
        (first, began), (last, ended) = self._finished[0], self._finished[-1]
        return (ended - began) / (last - first)


def duration(seconds: float) -> str:
    """Formats a duration: 75 becomes "1:15", 3675 becomes "1:01:15"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
