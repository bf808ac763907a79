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
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.data import datasets, prefetch
from mtl_jax.experiment import Experiment
from mtl_jax.runtime import atomic_files, processes, sharding
from mtl_jax.train import configured_step, initial_weights, inputs, task_balancing
from mtl_jax.train import state as train_state
from mtl_jax.train.progress import Plan, Progress

NUMBERS = "lr_finder.json"  # file in a work directory
_LOSS = "loss/total"
_MEMORY = 0.98  # of the running mean that says whether the loss diverges
_DIVERGED = 4.0  # the test ends where the running mean is this many times its least value
_WIDTH = 0.04  # standard deviation of the weights of the centred mean, as a share of the steps
_SKIPPED = (10, 1)  # first and last steps that cannot be suggested: the mean of few losses says little


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
        if self.steps < sum(_SKIPPED) + 2:
            raise ValueError(f"the range test has {self.steps} steps; the least is {sum(_SKIPPED) + 2}")

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


def run(experiment: Experiment, sweep: Sweep) -> RangeTest:
    """Trains from the initial weights at rising learning rates. Nothing of the training is kept.

    All processes of a run call this function with the same arguments.

    Args:
        experiment: The experiment. Its schedule and its learning rate do not count.
        sweep: The learning rates.

    Raises:
        ValueError, OSError: The configuration or the data does not fit.
    """
    config, mesh = experiment.config, sharding.make_mesh()
    train, balancing = config.train, task_balancing.from_config(config)
    sharding.check_batch_size(train.batch_size, mesh, "train.batch_size", train.accumulate)
    datasets.check_data_dir(experiment.data_dir)
    initial_weights.check(experiment)
    source = experiment.training_labels.open()
    batches = inputs.train_batches(experiment, source)
    state = train_state.create(
        partial(initial_weights.build_model, config),
        experiment.optimizer(batches.steps_per_epoch, sweep.rate),
        mesh,
        split=train.split_state,
        balancing=balancing,
    )
    step = configured_step.train_step(config, state, experiment.objective, balancing)
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


class Losses:
    """The losses of a range test so far.

    Attributes:
        values: All losses that are finite.
        diverged: The running mean of the losses is four times its least value, or a loss was not finite.
    """

    def __init__(self) -> None:
        self.values: list[float] = []
        self.diverged = False
        self._sum, self._least = 0.0, math.inf

    def add(self, loss: float) -> None:
        """Adds the loss of a step."""
        if not math.isfinite(loss):
            self.diverged = True
            return
        self.values.append(loss)
        self._sum = _MEMORY * self._sum + (1 - _MEMORY) * loss
        mean = self._sum / (1 - _MEMORY ** len(self.values))  # the sum begins at 0; the division takes that out
        self._least = min(self._least, mean)
        self.diverged = mean > _DIVERGED * self._least


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
    tried = f"{len(test.rates)} steps from {sweep.low:g} to {_last(test, sweep):g}"
    end = f"the loss diverged after {tried}" if test.diverged else f"the loss did not diverge in {tried}"
    if test.suggestion is None:
        return f"{end}; it never fell, so there is no suggestion. Try a lower --find_lr_min, or correct the labels"
    return f"{end}\nsuggested learning rate: {test.suggestion:.2e}   (--optim.lr={test.suggestion:.2e})"


def _last(test: RangeTest, sweep: Sweep) -> Any:
    return test.rates[-1] if test.rates else sweep.low
