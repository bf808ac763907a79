"""Timing programs that do the same, in turns, so that whatever else the machine does meets all of them."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from tqdm import tqdm

Result = TypeVar("Result")


@dataclass
class Timed:
    """What a program took.

    Attributes:
        result: what its first call returned.
        first: seconds of that call, which compiles.
        seconds: of each later call that was timed.
    """

    result: float
    first: float
    seconds: list[float]

    @property
    def median(self) -> float:
        """Seconds of the call in the middle."""
        return statistics.median(self.seconds)


def alternate(programs: Mapping[str, Callable[[], float]], *, repeats: int, warm_up: int) -> dict[str, Timed]:
    """Calls all programs once, then `warm_up` times untimed and `repeats` times timed, in turns.

    Args:
        programs: {name: function}; what it returns has to be a number on the host, so that the work is done by then.

    Raises:
        ValueError: no repeat.
    """
    if repeats < 1:
        raise ValueError(f"got {repeats} repeats, expected at least 1")
    timed = {}
    for name, program in programs.items():
        seconds, result = call(program)
        timed[name] = Timed(result, seconds, [])
    for turn in tqdm(range(warm_up + repeats), "repeats", leave=False):
        for name, program in programs.items():
            seconds, _ = call(program)
            if turn >= warm_up:
                timed[name].seconds.append(seconds)
    return timed


def call(function: Callable[[], Result]) -> tuple[float, Result]:
    """(seconds, result) of a call."""
    started = time.perf_counter()
    result = function()
    return time.perf_counter() - started, result
