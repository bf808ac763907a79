"""A jitted function compiled ahead of its first call, and what is learned on the way."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.timing import call


@dataclass(frozen=True)
class Costs:
    """What compiling took, and what XLA says of the program.

    Attributes:
        lowering: seconds until the program was traced and written down.
        compilation: seconds until it was compiled, or read from the persistent cache.
        operations: number of operations written down.
        instructions: number of XLA's instructions after its optimisations, those inside fused ones included.
        moved: bytes read and written, as XLA counts them.
        memory: bytes of arguments, results and temporary arrays together, those in the place of donated ones once.
        temporary: bytes of the temporary arrays alone.
    """

    lowering: float
    compilation: float
    operations: int
    instructions: int
    moved: float
    memory: int
    temporary: int


def compile_step(step: Callable[..., Any], *arguments: Any) -> tuple[Callable[..., Any], Costs]:
    """(executable, costs) of a jitted function for arguments of these shapes."""
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
