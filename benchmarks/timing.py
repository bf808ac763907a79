"""Times of programs, measured in turns, so that other work of the machine disturbs all of them."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tqdm import tqdm

Result = TypeVar("Result")


@dataclass
class Timed(Generic[Result]):
    """The times of a program.

    Attributes:
        result: Result of the first step.
        first: Seconds of the first step, in which a program may compile.
        seconds: Seconds of a step, for each timed repeat.
    """

    result: Result
    first: float
    seconds: list[float]

    @property
    def median(self) -> float:
        """The median of the seconds of a step."""
        return statistics.median(self.seconds)


def alternate(
    programs: Mapping[str, Callable[[int], Result]], *, repeats: int, warm_up: int, steps: int = 1
) -> dict[str, Timed[Result]]:
    """Measures programs in turns, after a first step of each, and returns {name: times}.

    Args:
        programs: {name: function of the number of steps, which waits for the last one and returns its result}.
        repeats: Number of timed repeats.
        warm_up: Number of repeats before the timed ones.
        steps: Number of steps in a repeat. Between them an accelerator does not wait for the host, as in training.

    Raises:
        ValueError: `repeats` or `steps` is below 1.
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
    """Calls a function, and returns (seconds, result)."""
    started = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - started, result
