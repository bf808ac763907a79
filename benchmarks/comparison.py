"""Steps of several programs that do the same, measured in turns: times, memory, shares of the device's peaks."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import jax

from benchmarks import device
from benchmarks.compiled import Costs
from benchmarks.timing import Timed, alternate

OURS = "mtl_jax"


class Program(Protocol):
    """What is measured; a call takes so many steps, waits until the last one is done, and returns its result."""

    @property
    def memory(self) -> int | None:
        """Bytes it needs at its peak, its weights and its batch included; None where nobody counts."""

    def __call__(self, steps: int) -> Any: ...


class Step:
    """One of our programs: a compiled function.

    Attributes:
        flops: of a step: two for every multiply-add of a forward pass, and twice as many of a backward pass; those with
            padding count, as is usual, though dilated convolutions leave them out.
        costs: of compiling it, and what XLA says of it.
    """

    flops: int
    costs: Costs

    @property
    def memory(self) -> int:
        """By XLA's plan."""
        return self.costs.memory

    def __call__(self, steps: int = 1) -> Any:
        raise TypeError(f"{type(self).__name__} does not define __call__")


@dataclass(frozen=True)
class Comparison:
    """What was measured.

    Attributes:
        programs: by name; the others are compared with the first.
        timed: what they took.
        deviations: how far their first results are from the first program's.
        batch_size: images in a step.
        allocated_peak: see `device.allocated_peak`, after all programs.
        peaks: of the device.
    """

    programs: Mapping[str, Program]
    timed: Mapping[str, Timed]
    deviations: Mapping[str, float]
    batch_size: int
    allocated_peak: int | None
    peaks: device.Peaks

    def numbers(self) -> dict[str, Any]:
        """Everything, for JSON."""
        rows = {}
        for name, program in self.programs.items():
            found = self.timed[name]
            rows[name] = {
                "first": found.first,
                "seconds": found.seconds,
                "median": found.median,
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
        """The programs as Markdown."""
        ours, first = next(iter(self.timed.items()))
        lines = [
            f"| program | ms a step (spread) | images/s | until the first is done | memory | {ours} is |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
        ]
        for name, found in self.timed.items():
            spread = f"{_ms(found.median)} ({_ms(min(found.seconds))} to {_ms(max(found.seconds))})"
            ratio = "" if found is first else f"{found.median / first.median:.2f}x"
            program = self.programs[name]
            rate, until_first = self.batch_size / found.median, found.first
            if isinstance(program, Step):
                until_first += program.costs.lowering + program.costs.compilation
            memory = "-" if program.memory is None else f"{program.memory / 2**30:.2f} GiB"
            lines.append(f"| {name} | {spread} | {rate:.2f} | {until_first:.1f} s | {memory} | {ratio} |")
        return "\n".join(lines)

    def describe(self) -> str:
        """Of our programs: compilation, temporary memory, and the shares of the device's peaks that they reach."""
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
    """Measures all programs.

    Args:
        deviation: (first program's result, another's) -> how far they are apart.
        tolerance: {precision, see `device.precision`: the largest deviation that its roundings explain}.
        dtype: that the programs compute in.
        batch_size: images in a step.
        repeats, warm_up, steps: see `timing.alternate`.

    Raises:
        ValueError: several devices, of which PyTorch would use one; or the results differ: the programs do not do the
            same.
    """
    if jax.device_count() > 1:
        raise ValueError(
            f"jax has {jax.device_count()} devices, of which PyTorch would use one; set CUDA_VISIBLE_DEVICES=0 to "
            "compare them"
        )
    timed = alternate(programs, repeats=repeats, warm_up=warm_up, steps=steps)
    first, *_ = timed
    deviations = {name: deviation(timed[first].result, found.result) for name, found in timed.items()}
    allowed = tolerance[device.precision(dtype)]
    if wrong := {name: value for name, value in deviations.items() if not value <= allowed}:
        raise ValueError(
            f"the results of the first step differ from those of {first} by {wrong}, allowed is {allowed}; the "
            "programs do not do the same"
        )
    # Measured last, because the large arrays count among what jax has held.
    held = device.allocated_peak()
    return Comparison(programs, timed, deviations, batch_size, held, device.peaks(dtype))


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.0f}" if seconds >= 0.1 else f"{1e3 * seconds:.2f}"
