"""Comparison of programs with the same task: times, memory, and shares of the device's peaks, measured in turns."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import jax

from benchmarks import device
from benchmarks.compiled import Costs
from benchmarks.timing import Timed, alternate
from mtl_jax.runtime.allocator import describe_allocator

OURS = "mtl_jax"


class Program(Protocol):
    """A program to measure; a call takes `steps` steps, waits for the last one, and returns its result."""

    @property
    def memory(self) -> int | None:
        """Number of bytes at the peak, with weights and batch; None where it is unknown."""

    def __call__(self, steps: int) -> Any: ...


class Step:
    """A compiled program of this package.

    Attributes:
        flops: Number of floating-point operations of a step: two for every multiply-add of the forward pass, and twice
            as many for the backward pass. Multiply-adds with padding count, as is usual, although dilated convolutions
            leave them out.
        costs: Costs of compiling and running the program.
    """

    flops: int
    costs: Costs

    @property
    def memory(self) -> int:
        """Number of bytes at the peak, by XLA's plan."""
        return self.costs.memory

    def __call__(self, steps: int = 1) -> Any:
        raise TypeError(f"{type(self).__name__} does not define __call__")


@dataclass(frozen=True)
class Comparison:
    """The measurements of several programs.

    Attributes:
        programs: {name: program}; the first is compared with the others.
        timed: {name: times}.
        deviations: {name: deviation of the first step's result from the first program's}.
        batch_size: Number of images in a step.
        allocated_peak: Result of `device.allocated_peak` after all programs.
        peaks: Peaks of the device.
    """

    programs: Mapping[str, Program]
    timed: Mapping[str, Timed]
    deviations: Mapping[str, float]
    batch_size: int
    allocated_peak: int | None
    peaks: device.Peaks

    def numbers(self) -> dict[str, Any]:
        """Returns all measurements, ready for JSON."""
        rows = {}
        for name, program in self.programs.items():
            timed = self.timed[name]
            rows[name] = {
                "first": timed.first,
                "seconds": timed.seconds,
                "median": timed.median,
                "memory": program.memory,
                "deviation": self.deviations[name],
            }
            if isinstance(program, Step):
                rows[name] |= {"flops": program.flops, **asdict(program.costs)}
        return {
            **device.describe(),
            "batch_size": self.batch_size,
            "allocated_peak": self.allocated_peak,
            "peaks": asdict(self.peaks),
            "rows": rows,
        }

    def table(self) -> str:
        """Returns a Markdown table of the programs."""
        ours, first = next(iter(self.timed.items()))
        lines = [
            f"| program | ms a step (spread) | images/s | until the first is done | memory | {ours} is |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
        ]
        for name, timed in self.timed.items():
            spread = f"{_ms(timed.median)} ({_ms(min(timed.seconds))} to {_ms(max(timed.seconds))})"
            ratio = "" if timed is first else f"{timed.median / first.median:.2f}x"
            program = self.programs[name]
            rate, until_first = self.batch_size / timed.median, timed.first
            if isinstance(program, Step):
                until_first += program.costs.lowering + program.costs.compilation
            memory = "-" if program.memory is None else f"{program.memory / 2**30:.2f} GiB"
            lines.append(f"| {name} | {spread} | {rate:.2f} | {until_first:.1f} s | {memory} | {ratio} |")
        return "\n".join(lines)

    def describe(self) -> str:
        """Returns a text with compilation, temporary memory and shares of the device's peaks of our programs."""
        lines = []
        for name, step in self.programs.items():
            if not isinstance(step, Step):
                continue
            costs, seconds = step.costs, self.timed[name].median
            rate, moved = step.flops / seconds, costs.moved / seconds
            lines += [
                f"{name}: {costs.lowering:.1f} s to trace and lower, {costs.compilation:.1f} s to compile",
                f"  {costs.temporary / 2**30:.2f} GiB of temporary memory",
                f"  {rate / 1e9:.0f} GFLOP/s of the model, {rate / self.peaks.flops:.0%} of a matrix product's "
                f"{self.peaks.flops / 1e9:.0f}",
                f"  {moved / 1e9:.1f} GB/s as XLA counts them, {moved / self.peaks.bandwidth:.0%} of the "
                f"{self.peaks.bandwidth / 1e9:.1f} of a copy",
            ]
        lines.append(f"allocator of all programs: {describe_allocator()}")
        if self.allocated_peak is not None:
            lines.append(f"jax held {self.allocated_peak / 2**30:.2f} GiB at most, of all its programs together")
        return "\n".join(lines)


def compare(
    programs: Mapping[str, Program],
    deviation: Callable[[Any, Any], float],
    tolerance: Mapping[str, float],
    *,
    dtype: str,
    batch_size: int,
    repeats: int,
    warm_up: int,
    steps: int,
) -> Comparison:
    """Measures programs, and returns the measurements.

    Args:
        programs: {name: program}.
        deviation: Function (result of the first program, result of another) -> deviation.
        tolerance: {precision: largest deviation that its roundings explain}, see `device.precision`.
        dtype: Computation dtype of the programs.
        batch_size: Number of images in a step.
        repeats: Number of timed repeats, see `timing.alternate`.
        warm_up: Number of repeats before the timed ones.
        steps: Number of steps in a repeat.

    Raises:
        ValueError: JAX has several devices, of which PyTorch would use one; or the programs do not compute the same.
    """
    if jax.device_count() > 1:
        raise ValueError(
            f"jax has {jax.device_count()} devices, of which PyTorch would use one; set CUDA_VISIBLE_DEVICES=0 to "
            "compare them"
        )
    timed = alternate(programs, repeats=repeats, warm_up=warm_up, steps=steps)
    first, *_ = timed
    deviations = {name: deviation(timed[first].result, other.result) for name, other in timed.items()}
    allowed = tolerance[device.precision(dtype)]
    if wrong := {name: value for name, value in deviations.items() if not value <= allowed}:
        raise ValueError(
            f"the results of the first step differ from those of {first} by {wrong}, allowed is {allowed}; the "
            "programs do not do the same"
        )
    # Measured last, because the large arrays would count in the allocated peak.
    held = device.allocated_peak()
    return Comparison(programs, timed, deviations, batch_size, held, device.peaks(dtype))


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.0f}" if seconds >= 0.1 else f"{1e3 * seconds:.2f}"
