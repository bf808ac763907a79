"""Measures parts of the library, alternately with the same work in PyTorch.

    python scripts/benchmark.py train --config configs/nyud_mtinet.py:aux=edge+normals --against eager,compile \\
        --config.train.batch_size=2 --config.data.image_size="(240, 320)"
    python scripts/benchmark.py infer --config configs/nyud_mtinet.py --infer_batch 1 --against channels_last
    python scripts/benchmark.py eval --config configs/nyud_mtinet.py --config.train.batch_size=2
    python scripts/benchmark.py balance --config configs/pascal_baseline.py --methods dwa,cagrad
    python scripts/benchmark.py compile --config configs/nyud_mtinet.py --against compile
    python scripts/benchmark.py learn --config configs/folder.py:root=DIR --learn_steps 400 --plot curves.png
    python scripts/benchmark.py input --recipe pascal --workers 0,1,2,4 --images 64 --json input.json

`train`, `infer` and `eval` measure steps of a configuration on one random batch: steady state, compilation, memory, and
the share of the device's measured peaks. With --against the PyTorch twin of the model (parity/reference) takes the same
steps with the same weights and batch: eagerly, with channels_last, or compiled; the results of the first step have to
agree. `balance` measures training steps with different balancing methods. `compile` measures compilation with an empty
and with a filled cache, in processes of its own. `learn` trains on the configuration's data, beside PyTorch on the
same batches, and shows both curves. `input` measures the input pipeline beside a DataLoader. Every benchmark has a file
in benchmarks/, which describes it.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import flags
from ml_collections import config_flags

sys.path.insert(0, str(Path(__file__).parents[1]))  # of benchmarks and parity, which no installed package holds

from benchmarks import balance, comparison, compile, device, eval, infer, input, learn, train
from mtl_jax import cli, experiment
from mtl_jax.balancing import BALANCERS
from mtl_jax.config import Config
from mtl_jax.runtime import atomic_files

_WAYS = ("eager", "channels_last", "compile", "compile_channels_last")
_ALL = "for all but input: "

_CONFIG = config_flags.DEFINE_config_file("config", help_string=_ALL + "FILE.py or FILE.py:key=value,...")
_AGAINST = flags.DEFINE_list("against", [], f"{_ALL}ways to run PyTorch, of {', '.join(_WAYS)}")
_REPEATS = flags.DEFINE_integer("repeats", 3, "number of repeats, of which the median is reported", lower_bound=1)
_WARM_UP = flags.DEFINE_integer("warm_up", 2, "for steps: number of repeats before the timed ones", lower_bound=0)
_STEPS = flags.DEFINE_integer("steps", 1, "for steps: number of steps in a repeat", lower_bound=1)
_INFER_BATCH = flags.DEFINE_integer("infer_batch", 1, "for infer: number of images in a batch", lower_bound=1)
_METHODS = flags.DEFINE_list("methods", list(BALANCERS), "for balance: balancing methods, beside fixed weights")
_LEARN_STEPS = flags.DEFINE_integer("learn_steps", 200, "for learn: number of training steps", lower_bound=1)
_EVALUATE_EVERY = flags.DEFINE_integer(
    "evaluate_every", 50, "for learn: number of training steps between evaluations", lower_bound=1
)
_PLOT = flags.DEFINE_string("plot", None, "for learn: PNG file that receives the curves; needs the extra plots")
_HERE = flags.DEFINE_bool(
    "here", False, "for compile: compile once in this process, with PyTorch if --against names a way"
)
_RECIPES = flags.DEFINE_multi_enum(
    "recipe", list(input.CASES), list(input.CASES), "for input: recipes to measure (repeatable)"
)
_WORKERS = flags.DEFINE_list("workers", ["0", "1", "2"], "for input: numbers of worker processes")
_IMAGES = flags.DEFINE_integer("images", 32, "for input: number of images in each data set", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "for input: number of images in a batch", lower_bound=1)
_BATCHES = flags.DEFINE_integer("batches", 12, "for input: number of batches timed in each repeat", lower_bound=1)
_SCALE = flags.DEFINE_float("scale", 1.0, "for input: factor on the sides of the images", lower_bound=0.1)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "for input: folder that keeps the files for the next time; by default a temporary one"
)
_JSON = flags.DEFINE_string("json", None, "file that receives the numbers")


def main(what: str) -> None:
    if what not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {what!r}; there are: {', '.join(BENCHMARKS)}")
    if _AGAINST.value:  # before jax starts: it would leave PyTorch a quarter of the memory of a GPU
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    content = BENCHMARKS[what]()
    if _JSON.value:
        path = Path(_JSON.value)
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_files.write_json(path, content | {"arguments": sys.argv[1:], "cpus": os.cpu_count()})


def _steps(what: ModuleType) -> dict[str, Any]:
    """Measures steps of our programs and PyTorch's; `what` is a module of benchmarks with `programs`."""
    config = _config()
    if what is infer:
        config = replace(config, train=replace(config.train, batch_size=_INFER_BATCH.value))
    return _compare(what.programs(config, *_ways()), what, config)


def _balance() -> dict[str, Any]:
    config = _config()
    return _compare(balance.programs(config, _METHODS.value), train, config)


def _compare(programs: dict[str, comparison.Program], what: ModuleType, config: Config) -> dict[str, Any]:
    compared = comparison.compare(
        programs,
        what.deviation,
        what.TOLERANCE,
        dtype=config.model.dtype,
        batch_size=config.train.batch_size,
        repeats=_REPEATS.value,
        warm_up=_WARM_UP.value,
        steps=_STEPS.value,
    )
    cli.show(f"{compared.table()}\n\n{compared.describe()}")
    return compared.numbers()


def _learn() -> dict[str, Any]:
    config = _config()
    ways, reference = _ways()
    if reference is None:
        raise ValueError("learn compares with PyTorch: install the extra parity and give --against=eager")
    if _PLOT.value and importlib.util.find_spec("matplotlib") is None:
        raise ValueError("--plot needs matplotlib: install the extra plots, or leave --plot out")
    learned = learn.learn(config, ways, reference, _LEARN_STEPS.value, _EVALUATE_EVERY.value)
    cli.show(learned.table())
    if _PLOT.value:
        importlib.import_module("benchmarks.learning_curves").draw(learned, Path(_PLOT.value))
    return learned.numbers()


def _compile() -> dict[str, Any]:
    config = _config()
    ways, reference = _ways()
    if _HERE.value:
        cli.enable_compilation_cache()
        here = compile.theirs(config, ways[0], reference) if ways else compile.ours(config)
        return {**device.describe(), "rows": here}
    command = [sys.executable, *sys.argv, "--here"]
    rows: dict[str, Any] = {}
    for way in ("", *ways):  # this process leaves the memory of the device to the others
        compiled, known = compile.twice([*command, f"--against={way}"])
        rows |= compiled
    cli.show(compile.table(rows))
    return {**known, "rows": rows}


def _input() -> dict[str, Any]:
    workers = [_number(text) for text in _WORKERS.value]
    settings = input.Settings(_IMAGES.value, _BATCH_SIZE.value, _BATCHES.value, _REPEATS.value, _SCALE.value)
    reference = _reference("input", "torch", "skimage")
    if reference is not None:
        reference.torch.set_num_threads(1)
    rows, deviations = input.measure(_RECIPES.value, workers, settings, reference, _DATA_DIR.value)
    cli.show(input.table(rows))
    for name, largest in deviations.items():
        cli.show(f"\n{name}, largest deviation: " + ", ".join(f"{task} {value:.1e}" for task, value in largest.items()))
    return {"settings": vars(settings), "deviations": deviations, "rows": rows}


BENCHMARKS: dict[str, Callable[[], dict[str, Any]]] = {
    "train": partial(_steps, train),
    "balance": _balance,
    "infer": partial(_steps, infer),
    "eval": partial(_steps, eval),
    "learn": _learn,
    "compile": _compile,
    "input": _input,
}


def _config() -> Config:
    if _CONFIG.value is None:
        raise ValueError("--config is missing: give it FILE.py")
    return experiment.make(experiment.resolve(_CONFIG.value)).config


def _ways() -> tuple[list[str], Any]:
    """Returns (ways to run PyTorch, module parity.reference.speed), or ([], None) where PyTorch does not run."""
    ways = [way for way in _AGAINST.value if way]
    if unknown := [way for way in ways if way not in _WAYS]:
        raise ValueError(f"--against has {', '.join(unknown)}; the ways to run PyTorch are {', '.join(_WAYS)}")
    reference = _reference("speed", "torch") if ways else None
    return (ways if reference else []), reference


def _number(text: str) -> int:
    if not text.isdigit():
        raise ValueError(f"--workers is {','.join(_WORKERS.value)}, expected numbers from 0, separated by commas")
    return int(text)


def _reference(module: str, *needed: str) -> Any:
    """Returns a module of parity.reference with PyTorch's side, or None where a package that it needs is missing."""
    for name in needed:
        if importlib.util.find_spec(name) is None:
            cli.show(f"{name} is not installed: only mtl_jax is measured")
            return None
    return importlib.import_module(f"parity.reference.{module}")


if __name__ == "__main__":
    cli.run(main, "what")
