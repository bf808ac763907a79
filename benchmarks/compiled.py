"""Compilation of a jitted function ahead of its first call, and its costs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.timing import call


@dataclass(frozen=True)
class Costs:
    """The costs of compiling a program, and of running it by XLA's count.

    Attributes:
        lowering: Seconds to trace and lower the program.
        compilation: Seconds to compile the program, or to read it from the persistent cache.
        operations: Number of operations of the lowered program.
        instructions: Number of XLA's instructions after optimisation, including those inside of fused instructions.
        moved: Number of bytes that are read and written.
        memory: Number of bytes of arguments, results and temporary arrays; a result that takes the place of a donated
            argument counts once.
        temporary: Number of bytes of the temporary arrays.
    """

    lowering: float
    compilation: float
    operations: int
    instructions: int
    moved: float
    memory: int
    temporary: int


def compile_step(step: Callable[..., Any], *arguments: Any) -> tuple[Callable[..., Any], Costs]:
    """Returns (executable, costs) of a jitted function for arguments of the given shapes."""
    jitted: Any = step
    lowering, lowered = call(jitted.lower, *arguments)
    compilation, compiled = call(lowered.compile)
    memory = compiled.memory_analysis()
    written = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return compiled, Costs(
        lowering=lowering,
        compilation=compilation,
        operations=_count(lowered.as_text()),
        instructions=_count(compiled.as_text()),
        moved=compiled.cost_analysis()["bytes accessed"],
        memory=written + memory.temp_size_in_bytes,
        temporary=memory.temp_size_in_bytes,
    )


def _count(program: str) -> int:
    return sum(" = " in line for line in program.splitlines())
