"""Measures parts of the library beside the same work done in PyTorch, alternately in one run.

    python scripts/benchmark.py train --config configs/nyud_mtinet.py:aux=edge+normals --against eager,compile \\
        --config.train.batch_size=2 --config.data.image_size="(240, 320)"
    python scripts/benchmark.py input --recipe pascal --workers 0,1,2,4 --images 64 --json input.json

`train` measures training steps of a configuration on one random batch: steady state, compilation, and what share of the
device's measured peaks is reached. With --against the PyTorch twin of the model (parity/reference) takes the same
steps, with the same weights, batch, losses and optimiser: eagerly, with channels_last, or compiled. The losses of the
first step have to agree. `input` measures the input pipeline beside a DataLoader, see mtl_jax/benchmark/input.py.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from mtl_jax import cli, experiment, whole
from mtl_jax.benchmark import device, input, timing, train
from mtl_jax.config import validate

ROOT = Path(__file__).parents[1]
_WAYS = ("eager", "channels_last", "compile", "compile_channels_last")
# Of the first step's loss, relative to PyTorch's.
_TOLERANCE = {"float32": 1e-3, "bfloat16": 3e-2}

_CONFIG = config_flags.DEFINE_config_file("config", help_string="of train: FILE.py or FILE.py:key=value,...")
_AGAINST = flags.DEFINE_list("against", [], f"of train: ways to run PyTorch, of {', '.join(_WAYS)}")
_WARM_UP = flags.DEFINE_integer("warm_up", 2, "of train: steps before those that are timed", lower_bound=0)
_RECIPES = flags.DEFINE_multi_enum("recipe", list(input.CASES), list(input.CASES), "of input: what (repeatable)")
_WORKERS = flags.DEFINE_list("workers", ["0", "1", "2"], "of input: numbers of worker processes")
_IMAGES = flags.DEFINE_integer("images", 32, "of input: images in each data set", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "of input: images in a batch", lower_bound=1)
_BATCHES = flags.DEFINE_integer("batches", 12, "of input: batches timed in each repeat", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 3, "repeats, of which the median is reported", lower_bound=1)
_SCALE = flags.DEFINE_float("scale", 1.0, "of input: of the sides of the images, for trying out", lower_bound=0.1)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "of input: keeps the files for the next time, else temporary")
_JSON = flags.DEFINE_string("json", None, "file that receives the numbers")


def main(what: str) -> None:
    if what not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {what!r}; there are: {', '.join(BENCHMARKS)}")
    content = BENCHMARKS[what]()
    if _JSON.value:
        whole.write_json(Path(_JSON.value), {"cpus": os.cpu_count(), **content})


def _input() -> dict[str, Any]:
    workers = [_number(text) for text in _WORKERS.value]
    settings = input.Settings(_IMAGES.value, _BATCH_SIZE.value, _BATCHES.value, _REPEATS.value, _SCALE.value)
    reference = _reference("input", "torch", "skimage")
    if reference is not None:
        reference.torch.set_num_threads(1)
    rows, deviations = input.measure(_RECIPES.value, workers, settings, reference, _DATA_DIR.value)
    print(input.table(rows))
    for name, found in deviations.items():
        print(f"\n{name}, largest deviation: " + ", ".join(f"{task} {value:.1e}" for task, value in found.items()))
    return {"settings": vars(settings), "deviations": deviations, "rows": rows}


def _train() -> dict[str, Any]:
    if _CONFIG.value is None:
        raise ValueError("train needs --config FILE.py")
    if unknown := [way for way in _AGAINST.value if way not in _WAYS]:
        raise ValueError(f"--against has {', '.join(unknown)}; the ways to run PyTorch are {', '.join(_WAYS)}")
    config = validate(experiment.resolve(_CONFIG.value))
    batch = train.random_batch(config)
    ours = train.TrainStep(config, batch)
    programs: dict[str, Callable[[], float]] = {"mtl_jax": ours}
    if _AGAINST.value and (speed := _reference("speed", "torch")) is not None:
        for way in _AGAINST.value:
            programs[f"torch {way}"] = speed.TrainStep(config, ours.weights, batch, way)
    timed = timing.alternate(programs, repeats=_REPEATS.value, warm_up=_WARM_UP.value)
    deviations = {name: abs(found.result / timed["mtl_jax"].result - 1) for name, found in timed.items()}
    if wrong := {name: value for name, value in deviations.items() if value > _TOLERANCE[config.model.dtype]}:
        raise ValueError(f"the losses of the first step differ from mtl_jax's: {wrong}; the programs are not the same")
    peak, bandwidth = device.matmul_flops(config.model.dtype), device.bandwidth()
    print(train.table(timed, config.train.batch_size))
    print("\n" + train.describe(ours, timed["mtl_jax"], peak, bandwidth))
    return {
        "rows": {name: {**vars(found), "median": found.median} for name, found in timed.items()},
        "deviations": deviations,
        "lowering": ours.lowering,
        "compilation": ours.compilation,
        "flops": ours.flops,
        "analysis": ours.analysis,
        "peak flops": peak,
        "bandwidth": bandwidth,
    }


BENCHMARKS: dict[str, Callable[[], dict[str, Any]]] = {"input": _input, "train": _train}


def _number(text: str) -> int:
    if not text.isdigit():
        raise ValueError(f"--workers is {','.join(_WORKERS.value)}, expected numbers from 0, separated by commas")
    return int(text)


def _reference(module: str, *needed: str) -> Any:
    """The module of parity.reference with PyTorch's side, or None where it cannot run."""
    for name in needed:
        if importlib.util.find_spec(name) is None:
            print(f"{name} is not installed: only mtl_jax is measured")
            return None
    sys.path.insert(0, str(ROOT))  # worker processes get the path, too
    return importlib.import_module(f"parity.reference.{module}")


if __name__ == "__main__":
    cli.run(main, "what")
