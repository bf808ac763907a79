"""A comparison of balancing methods: one small model is trained with every method and a few seeds."""

import json
import math
import os
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from mtl_jax import backbones, cli, experiment, folders
from mtl_jax import tasks as task_table
from mtl_jax.backbones import resnet
from mtl_jax.balancing import BALANCERS
from mtl_jax.config import PLAIN_BALANCING, Config, Data, Model, Optim, Train
from mtl_jax.metrics import deciding, delta_m
from mtl_jax.nn import BasicBlock
from mtl_jax.protocol import criteria
from mtl_jax.runtime import atomic_files, workers
from mtl_jax.train.loop import NonFiniteLossError, fit

TASKS = task_table.ordered(("semseg", "human_parts", "sal", "normals", "edge"))
BUILDER = "rendered_scenes/pascal_small"
SCORES = "scores.json"
BACKBONE = "resnet18_w8"
SINGLE, EQUAL, TUNING = "single", "equal", "tuning"
TUNING_SEED = 100
# Fixed weights are left out because they are tuned. STCH compares losses to those of a warm-up.
METHODS = tuple("stch:warm_up=50" if name == "stch" else name for name in BALANCERS if name != PLAIN_BALANCING)
# Tuning begins with equal weights and with the task table's weights.
STARTS = ((1.0,) * len(TASKS), tuple(task_table.get(task).loss_weight for task in TASKS))


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        group: Group of the run: a method, `single/TASK`, or `tuning/WEIGHTS`.
        tasks: Main tasks.
        balancing: Balancing method, as in `Config.balancing`.
        seed: Seed of initial weights, order of the images and augmentation.
    """

    group: str
    tasks: tuple[str, ...]
    balancing: str
    seed: int

    def folder(self, root: Path) -> Path:
        """Returns the work directory of the run."""
        return root / self.group / str(self.seed)

    def config(self, epochs: int, data_dir: str) -> Config:
        """Returns the configuration of the run."""
        return Config(
            Data(
                "pascal",
                self.tasks,
                builder=BUILDER,
                data_dir=data_dir,
                image_size=(64, 64),
                num_workers=0,
            ),
            Model("single_task" if len(self.tasks) == 1 else "baseline", BACKBONE, head="hrnet"),
            Optim("adam", lr=1e-3, weight_decay=1e-4),
            Train(batch_size=4, epochs=epochs, eval_final_epochs=1, eval_batch_size=20, seed=self.seed),
            balancing=self.balancing,
        )


def singles(seeds: Sequence[int]) -> list[Run]:
    """Returns the single-task runs, which the multi-task performance is relative to."""
    return [Run(f"{SINGLE}/{task}", (task,), PLAIN_BALANCING, seed) for seed in seeds for task in TASKS]


def balanced(methods: Mapping[str, str], seeds: Sequence[int]) -> list[Run]:
    """Returns the runs of {name: balancing method}."""
    return [Run(name, TASKS, method, seed) for seed in seeds for name, method in methods.items()]


def weights(values: Sequence[float]) -> str:
    """Returns fixed weights as a balancing method."""
    return "fixed:weights=" + "+".join(f"{value:g}" for value in values)


def variations(values: Sequence[float]) -> list[tuple[float, ...]]:
    """Returns variations of weights: each in turn is three times as large, and a third as large."""
    return [
        tuple(w * factor if i == position else w for i, w in enumerate(values))
        for position in range(len(values))
        for factor in (3, 1 / 3)
    ]


def tuning(candidates: Sequence[Sequence[float]]) -> list[Run]:
    """Returns a run for each choice of fixed weights, with a seed that the comparison does not use."""
    return [Run(f"{TUNING}/{_named(each)}", TASKS, weights(each), TUNING_SEED) for each in candidates]


def tuned(values: Sequence[float]) -> str:
    """Returns the name of tuned weights among the methods."""
    return f"tuned_{_named(values)}"


def _named(values: Sequence[float]) -> str:
    return "_".join(f"{value:g}" for value in values)


def init_process() -> None:
    """Prepares a process for training on one core."""
    os.environ["NPROC"] = "1"  # XLA's threads
    workers.init_worker()
    cli.enable_compilation_cache()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # many short runs share many small programs
    resnet.VARIANTS[BACKBONE] = resnet.Variant(BasicBlock, (2, 2, 2, 2), width=8)
    backbones.BACKBONES[BACKBONE] = resnet.build_resnet


def unscored(runs: Sequence[Run], root: Path, epochs: int, data_dir: str) -> list[Run]:
    """Returns the runs without scores.

    Raises:
        FileNotFoundError, ValueError: A run has scores of another configuration, or its configuration cannot be read.
    """
    missing = []
    for run in runs:
        folder = run.folder(root)
        if not (folder / SCORES).is_file():
            missing.append(run)
        elif listed := experiment.differences(run.config(epochs, data_dir), folder):
            raise ValueError(f"{folder} has scores of another configuration ({listed}); give another --workdir")
    return missing


def train(run: Run, root: Path, epochs: int, data_dir: str) -> None:
    """Trains a run, writes its scores and deletes its checkpoints.

    A run whose loss stops being finite has no results.
    """
    folder = run.folder(root)
    try:
        results: Any = fit(run.config(epochs, data_dir), folder)
    except NonFiniteLossError:
        results = None
    shutil.rmtree(folder / folders.CHECKPOINTS)
    atomic_files.write_json(folder / SCORES, results)
    jax.clear_caches()  # 200 MB of compiled programs a run


@dataclass(frozen=True)
class Row:
    """The runs of one method.

    Attributes:
        name: Name of the method.
        scores: {task: values of the deciding metric, one for each run that ended}.
        gains: Multi-task performance of each run that ended, as a fraction.
        diverged: Number of runs without results.
    """

    name: str
    scores: Mapping[str, list[float]]
    gains: list[float]
    diverged: int

    @property
    def gain(self) -> float:
        """The mean multi-task performance; minus infinity where no run ended."""
        return statistics.fmean(self.gains) if self.gains else -math.inf


class Study:
    """The scores of the runs below a folder.

    Args:
        root: Folder of the runs.
        single: Single-task runs; the multi-task performance is relative to their mean for each task.

    Attributes:
        criteria: {task: deciding metric}. Edges are ranked by their loss, because matching boundaries takes longer than
            the training.
        reference: {task: {deciding metric: value}} of the single-task runs.
    """

    def __init__(self, root: Path, single: Sequence[Run]):
        self.root = root
        self.criteria = criteria(TASKS, saliency="mIoU", final=False)
        values: dict[str, list[float]] = {task: [] for task in TASKS}
        for run in single:
            (task,) = run.tasks
            values[task].append(deciding(self._results(run), task, self.criteria[task]))
        self.reference = {task: {self.criteria[task].name: statistics.fmean(values[task])} for task in TASKS}

    def row(self, runs: Sequence[Run]) -> Row:
        """Returns the row of the runs of one method."""
        everything = [self._results(run) for run in runs]
        ended = [results for results in everything if results is not None]
        scores = {task: [deciding(results, task, self.criteria[task]) for results in ended] for task in TASKS}
        gains = [delta_m(results, self.reference, self.criteria) for results in ended]
        return Row(runs[0].group, scores, gains, len(everything) - len(ended))

    def table(self, rows: Sequence[Row]) -> str:
        """Returns a Markdown table of multi-task performance, with standard deviation, and of the tasks' means."""
        arrows = [f"{task} {c.name} {'↑' if c.sign > 0 else '↓'}" for task, c in self.criteria.items()]
        single = [f"{value:.4g}" for task in TASKS for value in self.reference[task].values()]
        lines = [["method", "Δ_m %", *arrows], ["---", *["---:"] * (1 + len(TASKS))], ["single tasks", "0", *single]]
        for row in rows:
            spread = f" ± {100 * statistics.stdev(row.gains):.2f}" if len(row.gains) > 1 else ""
            ended = f"{100 * row.gain:+.2f}{spread}" if row.gains else ""
            lost = f"{row.diverged} diverged" if row.diverged else ""
            means = [f"{statistics.fmean(values):.4g}" if values else "" for values in row.scores.values()]
            lines.append([row.name, "; ".join(filter(None, (ended, lost))), *means])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def _results(self, run: Run) -> Any:
        return json.loads((run.folder(self.root) / SCORES).read_text())
