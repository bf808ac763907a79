"""The learning-rate range test (Smith, arXiv 1506.01186, sec. 3.3), in the form of fastai's and Lightning's `lr_find`.

A short training raises the learning rate exponentially from step to step. The loss falls where the rate is useful, and
rises where it is too high. The suggestion is the rate at which the smoothed loss falls fastest.

The loss is smoothed by a centred mean. The running mean that `lr_find` takes lags behind by tens of steps, so that its
suggestion is several times too high where the test has a hundred steps.
"""

import contextlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import folders
from mtl_jax.data import datasets, prefetch
from mtl_jax.experiment import Experiment
from mtl_jax.runtime import atomic_files, processes, sharding
from mtl_jax.runtime.messages import counted
from mtl_jax.train import agreement, configured_step, initial_weights, inputs, measured_losses, task_balancing
from mtl_jax.train import state as train_state
from mtl_jax.train.progress import Plan, Progress

NUMBERS = "lr_finder.json"  # file in a work directory
_LOSS = "loss/total"
_MEMORY = 0.98  # of the running mean that says whether the loss diverges
_RISE = 3.0  # the test ends where the running mean has risen by this many times the size of the losses
_WIDTH = 0.04  # standard deviation of the weights of the centred mean, as a share of the steps
_SKIPPED = (10, 1)  # first and last steps that cannot be suggested: the mean of few losses says little
LEAST_STEPS = sum(_SKIPPED) + 2  # without two steps that count, nothing can be suggested


@dataclass(frozen=True)
class Sweep:
    """The rates of a range test.

    Attributes:
        low: Learning rate of the first step.
        high: Learning rate of the last step.
        steps: Number of steps.

    Raises:
        ValueError: The rates do not rise from above 0, or there are too few steps.
    """

    low: float = 1e-7
    high: float = 1.0
    steps: int = 100

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < math.inf:
            raise ValueError(
                f"the learning rates of the range test go from {self.low:g} to {self.high:g}; they must rise, and be "
                "positive and finite"
            )
        if self.steps < LEAST_STEPS:
            raise ValueError(f"the range test has {self.steps} steps; the least is {LEAST_STEPS}")

    def rate(self, step: jax.typing.ArrayLike) -> jax.Array:
        """Returns the learning rate of a step, counted from 0."""
        return self.low * (self.high / self.low) ** (jnp.asarray(step) / (self.steps - 1))


@dataclass(frozen=True)
class RangeTest:
    """The result of a range test; all lists have one entry for each step.

    Attributes:
        rates: Learning rates.
        losses: Total losses of the batches, before the step of the optimiser.
        smoothed: Means of the losses around each step, see `smooth`.
        suggestion: Learning rate at which the smoothed loss falls fastest; None where it does not fall.
        diverged: The test ended before its last step, because the loss had risen too high or was not finite.
    """

    rates: Sequence[float]
    losses: Sequence[float]
    smoothed: Sequence[float]
    suggestion: float | None
    diverged: bool


def run(experiment: Experiment, sweep: Sweep, workdir: Path) -> RangeTest:
    """Trains from the initial weights at rising learning rates. Nothing of the training is kept.

    All processes of a run call this function with the same arguments and share the work directory.

    Args:
        experiment: The experiment. Its schedule and its learning rate do not count.
        sweep: The learning rates.
        workdir: The work directory, which is made where it is not. It receives what the losses measure on the labels,
            as in training.

    Raises:
        ValueError, OSError: The configuration, the data or the work directory does not fit; nothing has been trained
            then.
    """
    config, mesh = experiment.config, sharding.make_mesh()
    train, balancing = config.train, task_balancing.from_config(config)
    agreement.check_configuration(config)
    processes.check_agreement("the range test", asdict(sweep))
    processes.on_first(partial(_check_has_no_run, workdir))
    sharding.check_batch_size(train.batch_size, mesh, "train.batch_size", train.accumulate)
    datasets.check_data_dir(experiment.data_dir)
    initial_weights.check(experiment)
    source = experiment.training_labels.open()
    agreement.check_data(source)
    processes.on_first(partial(workdir.mkdir, parents=True, exist_ok=True))
    objective = measured_losses.objective(experiment, source, workdir)
    batches = inputs.train_batches(experiment, source)
    state = train_state.create(
        partial(initial_weights.build_model, config),
        experiment.optimizer(batches.steps_per_epoch, sweep.rate),
        mesh,
        split=train.split_state,
        balancing=balancing,
    )
    step = configured_step.train_step(config, state, objective, balancing)
    plan = Plan(sweep.steps, batches.steps_per_epoch, train.batch_size, experiment.all_tasks)
    progress = Progress(plan, 0, shown=processes.first())
    arrays, losses = state.arrays, Losses()
    with contextlib.ExitStack() as exits:
        exits.callback(batches.close)
        what = inputs.describe(experiment, source)
        placed = prefetch.ahead(lambda: sharding.shard_batch(next(batches), mesh), what=what)
        exits.callback(placed.close)
        exits.callback(progress.close)
        for number in range(1, sweep.steps + 1):
            arrays, scalars = step(arrays, next(placed), np.uint32(train.seed))
            values = {name: float(value) for name, value in jax.device_get(scalars).items()}
            losses.add(values[_LOSS])
            if losses.diverged:
                break
            progress.logged(number, values)
            progress.finished(number, lambda: {})
    rates = [float(sweep.rate(number)) for number in range(len(losses.values))]
    smoothed = smooth(losses.values, sweep.steps)
    return RangeTest(rates, losses.values, smoothed, suggest(rates, smoothed), losses.diverged)


def _check_has_no_run(workdir: Path) -> None:
    """Raises a ValueError if a work directory has a checkpoint, which the range test would not begin with."""
    if folders.holds_checkpoint(workdir):
        raise ValueError(
            f"{workdir} holds a run with checkpoints, and the range test begins with the initial weights of the "
            "configuration; give it a folder of its own by another --workdir"
        )


class Losses:
    """The losses of a range test so far.

    They diverge where their running mean has risen above its least value by more than three times the mean size
    (absolute value) of the losses at that step. For positive losses that is four times the least value, the rule of
    fastai and Lightning. It also fits losses that may be negative, such as negative log-likelihoods of densities.

    Attributes:
        values: All losses that are finite.
        diverged: The losses diverge, or one was not finite.
    """

    def __init__(self) -> None:
        self.values: list[float] = []
        self.diverged = False
        self._sum, self._sum_of_sizes = 0.0, 0.0
        self._least, self._size = math.inf, 0.0  # least running mean, and mean size of the losses at its step

    def add(self, loss: float) -> None:
        """Adds the loss of a step."""
        if not math.isfinite(loss):
            self.diverged = True
            return
        self.values.append(loss)
        self._sum = _MEMORY * self._sum + (1 - _MEMORY) * loss
        self._sum_of_sizes = _MEMORY * self._sum_of_sizes + (1 - _MEMORY) * abs(loss)
        weight = 1 - _MEMORY ** len(self.values)  # the sums begin at 0; the division takes that out
        mean = self._sum / weight
        if mean < self._least:
            self._least, self._size = mean, self._sum_of_sizes / weight
        self.diverged = mean > self._least + _RISE * self._size


def smooth(losses: Sequence[float], steps: int) -> list[float]:
    """Returns the mean of the losses around each step, with the weights of a normal distribution.

    Args:
        losses: Losses of the steps.
        steps: Number of steps of the whole test. The standard deviation of the weights is 4 % of it.
    """
    positions = np.arange(len(losses))
    weights = np.exp(-(((positions[:, None] - positions) / (_WIDTH * steps)) ** 2) / 2)
    means: list[float] = (weights @ np.asarray(losses) / weights.sum(axis=1)).tolist()
    return means


def suggest(rates: Sequence[float], smoothed: Sequence[float]) -> float | None:
    """Returns the learning rate at which the smoothed loss falls fastest over the logarithm of the rate.

    Args:
        rates: Learning rates, in equal steps of their logarithm.
        smoothed: Smoothed losses. The first ten and the last one do not count.

    Returns:
        The rate; None where the loss does not fall, or the test has ended too early to tell.
    """
    first, last = _SKIPPED
    counted = np.asarray(smoothed[first : len(smoothed) - last])
    if len(counted) < 2:
        return None
    slopes = np.gradient(counted)
    steepest = int(slopes.argmin())
    return rates[first + steepest] if slopes[steepest] < 0 else None


def write(test: RangeTest, workdir: Path) -> Path:
    """Writes a range test as JSON into a work directory, which is made where it is not, and returns the path."""
    workdir.mkdir(parents=True, exist_ok=True)
    return atomic_files.write(workdir / NUMBERS, json.dumps(asdict(test), indent=1) + "\n")


def text(test: RangeTest, sweep: Sweep) -> str:
    """Returns what a range test says, for people."""
    if not test.losses:
        return (
            "the loss of the first step is not finite before any learning rate counts, so there is no suggestion. "
            "Correct the labels or the initial weights"
        )
    tried = f"{counted(len(test.rates), 'step')} from {sweep.low:g} to {test.rates[-1]:g}"
    end = f"the loss diverged after {tried}" if test.diverged else f"the loss did not diverge in {tried}"
    if test.suggestion is not None:
        return f"{end}\nsuggested learning rate: {test.suggestion:.2e}   (--optim.lr={test.suggestion:.2e})"
    if len(test.losses) < LEAST_STEPS:
        return f"{end}; a suggestion needs {LEAST_STEPS} steps. Try a lower --find_lr_min, or more --find_lr_steps"
    return f"{end}; it never fell, so there is no suggestion. Try a lower --find_lr_min, or correct the labels"
