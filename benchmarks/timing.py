"""Timing programs that do the same, in turns, so that whatever else the machine does meets all of them."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tqdm import tqdm

Result = TypeVar("Result")


@dataclass
class Timed(Generic[Result]):
    """What a program took.

    Attributes:
        result: of its first step.
        first: seconds of that step, which compiles what was not compiled before.
        seconds: of a step, in each turn that was timed.
    """

    result: Result
    first: float
    seconds: list[float]

    @property
    def median(self) -> float:
        """Seconds of a step, in the turn in the middle."""
        return statistics.median(self.seconds)


def alternate(
    programs: Mapping[str, Callable[[int], Result]], *, repeats: int, warm_up: int, steps: int = 1
) -> dict[str, Timed[Result]]:
    """Lets every program take one step, then in turns `warm_up` times `steps` untimed and `repeats` times timed.

    Args:
        programs: {name: function that takes so many steps, waits until the last one is done, and returns its result}.
        steps: more than 1: an accelerator need not wait for the host between them, as in training.

    Raises:
        ValueError: no repeat, or no step.
    """
    if repeats < 1 or steps < 1:
        raise ValueError(f"got {repeats} repeats of {steps} steps, expected at least 1 of 1")
    timed = {}
    for name, program in programs.items():
        seconds, result = call(program, 1)
        timed[name] = Timed(result, seconds, [])
    for turn in tqdm(range(warm_up + repeats), "repeats", leave=False):
        for name, program in programs.items():
            seconds, _ = call(program, steps)
            if turn >= warm_up:
                timed[name].seconds.append(seconds / steps)
    return timed


def call(function: Callable[..., Result], *arguments: Any) -> tuple[float, Result]:
    """(seconds, result) of a call."""
    started = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - started, result
