"""Training beside PyTorch: two networks learn from the same initial weights, images and labels, and show their curves.

Two programs round differently, and training amplifies every difference. How much is shown by a control: PyTorch's
network once more, with initial weights that differ by a rounding error.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from benchmarks.comparison import OURS
from benchmarks.train import without_dropout
from mtl_jax import experiment, weights
from mtl_jax.config import Config
from mtl_jax.data import loader
from mtl_jax.evaluation import scoring
from mtl_jax.experiment import Experiment
from mtl_jax.metrics import deciding
from mtl_jax.models import MultiTaskModel
from mtl_jax.runtime import sharding
from mtl_jax.train import initial_weights
from mtl_jax.train import state as train_state
from mtl_jax.train.step import make_eval_step, make_train_step

Batch = Mapping[str, np.ndarray]
Scores = dict[str, float]
CONTROL = "torch {way}, weights rounded otherwise"


class Learner(Protocol):
    """A network that learns."""

    def step(self, batch: Batch, rate: float) -> float:
        """Takes a training step at a learning rate, and returns the loss before it."""

    def scores(self, batches: Iterator[Batch]) -> Scores:
        """Returns {task: deciding score} of the validation images, at the size of the network."""


class OurLearner:
    """A network of this package, without dropout; its optimiser has the learning rate of the configuration."""

    def __init__(self, run: Experiment, model: MultiTaskModel, steps_per_epoch: int):
        self._run, self._mesh = run, sharding.make_mesh()
        state = train_state.create(lambda: without_dropout(model), run.optimizer(steps_per_epoch), self._mesh)
        self._arrays = state.arrays
        self._step = make_train_step(state.graphdef, run.objective)
        self._eval_step = make_eval_step(state.graphdef, run.streaming_metrics, self._mesh)

    def step(self, batch: Batch, rate: float) -> float:
        """Takes a training step, and returns the loss before it."""
        self._arrays, losses = self._step(self._arrays, sharding.shard_batch(batch, self._mesh))
        return float(losses["loss/total"])

    def scores(self, batches: Iterator[Batch]) -> Scores:
        """Returns {task: deciding score} of the validation images, at the size of the network."""
        results = scoring.streaming(self._eval_step, self._arrays, batches, self._run.streaming_metrics, self._mesh)
        return {task: deciding(results, task, criterion) for task, criterion in self._run.streaming_criteria.items()}


@dataclass
class Curve:
    """What one network did.

    Attributes:
        losses: Loss before each step.
        scores: {step: {task: deciding score}} of the validation images after some of the steps.
    """

    losses: list[float]
    scores: dict[int, Scores]


@dataclass(frozen=True)
class Learned:
    """The curves of all networks.

    Attributes:
        curves: {name: curve}.
        criteria: {task: name of the deciding score}.
    """

    curves: Mapping[str, Curve]
    criteria: Mapping[str, str]

    @property
    def reference(self) -> str:
        """The name of the second curve, PyTorch's, from which distances are measured."""
        _, name, *_ = self.curves
        return name

    def distances(self, name: str) -> list[float]:
        """Returns the relative distances of a curve's losses from the reference's, one for each step."""
        losses = zip(self.curves[name].losses, self.curves[self.reference].losses, strict=True)
        return [abs(own / other - 1) for own, other in losses]

    def numbers(self) -> dict[str, Any]:
        """Returns all curves, ready for JSON."""
        return {"criteria": dict(self.criteria), "curves": {name: vars(curve) for name, curve in self.curves.items()}}

    def table(self) -> str:
        """Returns a Markdown table of the steps between two evaluations: mean losses, distances and scores."""
        reference = self.reference
        titles = [f"{task} {name}" for task, name in self.criteria.items()]
        lines = [["steps", "network", "mean loss", f"mean distance from {reference}", *titles]]
        lines.append(["---", "---", *["---:"] * (2 + len(titles))])
        first = 0
        for last in self.curves[reference].scores:
            for name, curve in self.curves.items():
                loss, distance = (statistics.fmean(x[first:last]) for x in (curve.losses, self.distances(name)))
                scores = [f"{curve.scores[last][task]:.4f}" for task in self.criteria]
                shown = "" if name == reference else f"{distance:.1e}"
                lines.append([f"{first + 1} to {last}", name, f"{loss:.4f}", shown, *scores])
            first = last
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def learn(config: Config, ways: Sequence[str], reference: Any, steps: int, evaluate_every: int) -> Learned:
    """Trains the network of a configuration here and in PyTorch, and PyTorch's once more as the control.

    Args:
        config: Data, model, optimiser and sizes.
        ways: Ways to run PyTorch; the first one has a control.
        reference: The module parity.reference.speed.
        steps: Number of training steps.
        evaluate_every: Number of steps between evaluations on the whole validation split; the last step has one, too.

    Raises:
        ValueError, OSError: The data cannot be read, see `Experiment.open_split`.
    """
    run = experiment.make(config)
    source, val_source = run.training_labels.open(), run.open_split("val", run.main_tasks)
    shared: dict[str, Any] = {"conventions": run.conventions, "size": run.image_size, "recipe": run.recipe}
    steps_per_epoch = loader.steps_per_epoch(len(source), config.train.batch_size)
    rate = run.learning_rate(steps_per_epoch)

    model = initial_weights.build_model(run.config)
    arrays = {key: np.array(value) for key, value in weights.to_torch(model).items()}
    learners: dict[str, Learner] = {OURS: OurLearner(run, model, steps_per_epoch)}
    learners |= {f"torch {way}": reference.Learner(config, arrays, way) for way in ways}
    learners[CONTROL.format(way=ways[0])] = reference.Learner(config, rounded_otherwise(arrays), ways[0])

    curves = {name: Curve([], {}) for name in learners}
    batches = loader.train_batches(
        source,
        tasks=run.all_tasks,
        border=run.config.data.border,
        batch_size=config.train.batch_size,
        seed=config.train.seed,
        num_workers=config.data.num_workers,
        **shared,
    )
    with closing(batches):
        for step in tqdm(range(1, steps + 1), unit="step"):
            batch = next(batches)
            for name, learner in learners.items():
                curves[name].losses.append(learner.step(batch, float(rate(step - 1))))
            if step % evaluate_every == 0 or step == steps:
                for name, learner in learners.items():
                    val_batches = loader.val_batches(
                        val_source, tasks=run.main_tasks, batch_size=config.train.batch_size, **shared
                    )
                    curves[name].scores[step] = learner.scores(val_batches)
    return Learned(curves, {task: criterion.name for task, criterion in run.streaming_criteria.items()})


def rounded_otherwise(arrays: Mapping[str, np.ndarray], seed: int = 0) -> dict[str, np.ndarray]:
    """Returns weights that are up to one float32 rounding error, 1.2e-7 of themselves, larger or smaller."""
    rng = np.random.default_rng(seed)
    epsilon = np.finfo(np.float32).eps
    return {key: (x * (1 + epsilon * rng.uniform(-1, 1, x.shape))).astype(np.float32) for key, x in arrays.items()}
