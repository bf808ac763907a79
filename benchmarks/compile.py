"""How long programs take to compile: from nothing, and once more from the persistent cache.

Each time in a process of its own, because a process keeps what it has compiled. Of PyTorch's side it is the first
training step, which compiles, with an empty cache of its compiler and with a filled one.
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
    """{program: "seconds" and other costs} of compiling our programs in this process."""
    rows = {}
    for name, make in _OURS.items():
        costs = make(config).costs
        rows[name] = {"seconds": costs.lowering + costs.compilation, **asdict(costs)}
    return rows


def theirs(config: Config, way: str, reference: Any) -> dict[str, Numbers]:
    """{program: "seconds"} of PyTorch's first training step in this process.

    Args:
        reference: the module parity.reference.speed.
    """
    arrays = weights.to_torch(models.build(config))
    step = reference.TrainStep(config, arrays, batches.train_batch(config), way)
    return {f"torch {way} first training step": {"seconds": timing.call(step)[0]}}


def twice(command: Sequence[str]) -> tuple[dict[str, dict[str, Numbers]], dict[str, Any]]:
    """({program: {"empty": numbers, "filled": numbers}}, what else is known) from two processes.

    The second finds a filled cache.

    Args:
        command: of a process that writes {"rows": what `ours` or `theirs` returns, ...} into the file after --json.

    Raises:
        OSError: a process failed.
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
    """Markdown; the lowered program's operations, and XLA's instructions after its optimisations."""
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
