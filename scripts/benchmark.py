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

import argparse
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

sys.path.insert(0, str(Path(__file__).parents[1]))  # of benchmarks and parity, which no installed package holds

from benchmarks import balance, comparison, compile, device, eval, infer, input, learn, train
from mtl_jax import cli, experiment
from mtl_jax.balancing import BALANCERS
from mtl_jax.config import Config
from mtl_jax.runtime import atomic_files

_WAYS = ("eager", "channels_last", "compile", "compile_channels_last")
_ALL = "for all but input: "

# (option, least value, default, meaning)
_NUMBERS = (
    ("repeats", 1, 3, "number of repeats, of which the median is reported"),
    ("warm_up", 0, 2, "for steps: number of repeats before the timed ones"),
    ("steps", 1, 1, "for steps: number of steps in a repeat"),
    ("infer_batch", 1, 1, "for infer: number of images in a batch"),
    ("learn_steps", 1, 200, "for learn: number of training steps"),
    ("evaluate_every", 1, 50, "for learn: number of training steps between evaluations"),
    ("images", 1, 32, "for input: number of images in each data set"),
    ("batch_size", 1, 8, "for input: number of images in a batch"),
    ("batches", 1, 12, "for input: number of batches timed in each repeat"),
)


def add_arguments(parser: cli.Parser) -> None:
    parser.add_argument("what", choices=list(BENCHMARKS), metavar="WHAT", help=f"benchmark: {', '.join(BENCHMARKS)}")
    parser.add_config(required=False, positional=False)
    parser.add_argument(
        "--against",
        type=cli.names,
        default=(),
        metavar="A,B,...",
        help=f"{_ALL}ways to run PyTorch, of {', '.join(_WAYS)}",
    )
    for name, least, default, meaning in _NUMBERS:
        parser.add_argument(
            f"--{name}", type=cli.at_least(least), default=default, metavar="N", help=f"{meaning}; {default} by default"
        )
    parser.add_argument(
        "--methods",
        type=lambda text: text.split(","),
        default=list(BALANCERS),
        metavar="A,B,...",
        help="for balance: balancing methods, beside fixed weights",
    )
    parser.add_argument(
        "--plot", metavar="FILE", help="for learn: PNG file that receives the curves; needs the extra plots"
    )
    parser.add_argument(
        "--here",
        action="store_true",
        help="for compile: compile once in this process, with PyTorch if --against names a way",
    )
    parser.add_argument(
        "--recipe",
        action="append",
        choices=list(input.CASES),
        help="for input: recipe to measure (repeatable); by default all of them",
    )
    parser.add_argument(
        "--workers",
        type=_numbers,
        default=[0, 1, 2],
        metavar="A,B,...",
        help="for input: numbers of worker processes; 0,1,2 by default",
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, metavar="FACTOR", help="for input: factor on the sides of the images"
    )
    parser.add_argument(
        "--data_dir",
        metavar="DIR",
        help="for input: folder that keeps the files for the next time; by default a temporary one",
    )
    parser.add_argument("--json", metavar="FILE", help="file that receives the numbers")


def run(arguments: argparse.Namespace) -> None:
    if arguments.against:  # before jax starts: it would leave PyTorch a quarter of the memory of a GPU
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    content = BENCHMARKS[arguments.what](arguments)
    if arguments.json:
        path = Path(arguments.json)
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_files.write_json(path, content | {"arguments": sys.argv[1:], "cpus": os.cpu_count()})


def _steps(what: ModuleType, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures steps of our programs and PyTorch's; `what` is a module of benchmarks with `programs`."""
    config = _config(arguments)
    if what is infer:
        config = replace(config, train=replace(config.train, batch_size=arguments.infer_batch))
    return _compare(what.programs(config, *_ways(arguments)), what, config, arguments)


def _balance(arguments: argparse.Namespace) -> dict[str, Any]:
    config = _config(arguments)
    return _compare(balance.programs(config, arguments.methods), train, config, arguments)


def _compare(
    programs: dict[str, comparison.Program], what: ModuleType, config: Config, arguments: argparse.Namespace
) -> dict[str, Any]:
    compared = comparison.compare(
        programs,
        what.deviation,
        what.TOLERANCE,
        dtype=config.model.dtype,
        batch_size=config.train.batch_size,
        repeats=arguments.repeats,
        warm_up=arguments.warm_up,
        steps=arguments.steps,
    )
    cli.show(f"{compared.table()}\n\n{compared.describe()}")
    return compared.numbers()


def _learn(arguments: argparse.Namespace) -> dict[str, Any]:
    config = _config(arguments)
    ways, reference = _ways(arguments)
    if reference is None:
        raise ValueError("learn compares with PyTorch: install the extra parity and give --against=eager")
    if arguments.plot and importlib.util.find_spec("matplotlib") is None:
        raise ValueError("--plot needs matplotlib: install the extra plots, or leave --plot out")
    learned = learn.learn(config, ways, reference, arguments.learn_steps, arguments.evaluate_every)
    cli.show(learned.table())
    if arguments.plot:
        importlib.import_module("benchmarks.learning_curves").draw(learned, Path(arguments.plot))
    return learned.numbers()


def _compile(arguments: argparse.Namespace) -> dict[str, Any]:
    config = _config(arguments)
    ways, reference = _ways(arguments)
    if arguments.here:
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


def _input(arguments: argparse.Namespace) -> dict[str, Any]:
    settings = input.Settings(
        arguments.images, arguments.batch_size, arguments.batches, arguments.repeats, arguments.scale
    )
    reference = _reference("input", "torch", "skimage")
    if reference is not None:
        reference.torch.set_num_threads(1)
    rows, deviations = input.measure(
        arguments.recipe or list(input.CASES), arguments.workers, settings, reference, arguments.data_dir
    )
    cli.show(input.table(rows))
    for name, largest in deviations.items():
        cli.show(f"\n{name}, largest deviation: " + ", ".join(f"{task} {value:.1e}" for task, value in largest.items()))
    return {"settings": vars(settings), "deviations": deviations, "rows": rows}


BENCHMARKS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "train": partial(_steps, train),
    "balance": _balance,
    "infer": partial(_steps, infer),
    "eval": partial(_steps, eval),
    "learn": _learn,
    "compile": _compile,
    "input": _input,
}


def _config(arguments: argparse.Namespace) -> Config:
    if arguments.config is None:
        raise ValueError("--config is missing: give it a recipe")
    return experiment.make(experiment.resolve(arguments.config)).config


def _ways(arguments: argparse.Namespace) -> tuple[list[str], Any]:
    """Returns (ways to run PyTorch, module parity.reference.speed), or ([], None) where PyTorch does not run."""
    ways = [way for way in arguments.against if way]
    if unknown := [way for way in ways if way not in _WAYS]:
        raise ValueError(f"--against has {', '.join(unknown)}; the ways to run PyTorch are {', '.join(_WAYS)}")
    reference = _reference("speed", "torch") if ways else None
    return (ways if reference else []), reference


def _numbers(text: str) -> list[int]:
    """Returns the numbers in `0,1,2`, as an option's type."""
    parts = text.split(",")
    if not all(part.isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers from 0, separated by commas")
    return list(map(int, parts))


def _reference(module: str, *needed: str) -> Any:
    """Returns a module of parity.reference with PyTorch's side, or None where a package that it needs is missing."""
    for name in needed:
        if importlib.util.find_spec(name) is None:
            cli.show(f"{name} is not installed: only mtl_jax is measured")
            return None
    return importlib.import_module(f"parity.reference.{module}")


if __name__ == "__main__":
    cli.run(sys.modules[__name__], "scripts/benchmark.py")
