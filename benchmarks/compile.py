"""Time to compile programs, with an empty persistent cache and with a filled one.

Each measurement has a process of its own, because a process keeps its compiled programs. On PyTorch's side the first
training step is measured, which compiles, with an empty and with a filled cache of its compiler.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import batches, infer, timing, train
from benchmarks.comparison import OURS, Step
from mtl_jax import models, weights
from mtl_jax.config import Config

Numbers = dict[str, float]
CACHES = ("empty", "filled")
_OURS: dict[str, Callable[[Config], Step]] = {
    f"{OURS} training step": lambda config: train.TrainStep(config, batches.train_batch(config)),
    f"{OURS} prediction": lambda config: infer.PredictStep(config, models.build(config), batches.eval_batch(config)),
}


def ours(config: Config) -> dict[str, Numbers]:
    """Compiles the programs of this package in this process, and returns {program: "seconds" and other costs}."""
    rows = {}
    for name, make in _OURS.items():
        costs = make(config).costs
        rows[name] = {"seconds": costs.lowering + costs.compilation, **asdict(costs)}
    return rows


def theirs(config: Config, way: str, reference: Any) -> dict[str, Numbers]:
    """Takes PyTorch's first training step in this process, and returns {program: "seconds"}.

    Args:
        config: Model, optimiser and sizes.
        way: Way to run PyTorch.
        reference: The module parity.reference.speed.
    """
    arrays = weights.to_torch(models.build(config))
    step = reference.TrainStep(config, arrays, batches.train_batch(config), way)
    return {f"torch {way} first training step": {"seconds": timing.call(step)[0]}}


def twice(command: Sequence[str]) -> tuple[dict[str, dict[str, Numbers]], dict[str, Any]]:
    """Compiles in two processes, of which the second finds a filled cache.

    Args:
        command: Command of a process that writes {"rows": result of `ours` or `theirs`, ...} into the file after
            --json.

    Returns:
        ({program: {"empty": numbers, "filled": numbers}}, the other content of the file).

    Raises:
        OSError: A process failed.
    """
    rows: dict[str, dict[str, Numbers]] = {}
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "numbers.json"
        cache = {"MTL_JAX_CACHE": folder, "TORCHINDUCTOR_CACHE_DIR": f"{folder}/torch"}
        for state in CACHES:
            process = subprocess.run([*command, f"--json={output}"], env=os.environ | cache, text=True, check=False)
            if process.returncode:
                raise OSError(f"the process that compiles with an {state} cache ended with {process.returncode}")
            content = json.loads(output.read_text(encoding="utf-8"))
            for name, numbers in content.pop("rows").items():
                rows.setdefault(name, {})[state] = numbers
    return rows, content


def table(rows: Mapping[str, Mapping[str, Numbers]]) -> str:
    """Returns a Markdown table.

    Its columns: seconds with both caches, operations of the lowered program, and XLA's instructions after optimisation.
    """
    lines = [
        "| program | empty cache (of it lowering) | filled cache | operations | instructions |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, row in rows.items():
        empty, filled = (row[state] for state in CACHES)
        lowering = f" ({empty['lowering']:.1f} s)" if "lowering" in empty else ""
        sizes = " | ".join(str(empty.get(size, "")) for size in ("operations", "instructions"))
        lines.append(f"| {name} | {empty['seconds']:.1f} s{lowering} | {filled['seconds']:.1f} s | {sizes} |")
    return "\n".join(lines)
