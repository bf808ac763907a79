"""Training steps on a random batch."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks import batches
from benchmarks.comparison import OURS, Program, Step
from benchmarks.compiled import compile_step
from mtl_jax import experiment, models, weights
from mtl_jax.config import Config
from mtl_jax.nn import Dropout
from mtl_jax.reports import cost
from mtl_jax.runtime import sharding
from mtl_jax.train import state as train_state
from mtl_jax.train import task_balancing
from mtl_jax.train.step import make_train_step

# Largest relative difference of the first step's loss.
TOLERANCE = {"float32": 1e-4, "tf32": 1e-2, "bfloat16": 3e-2}


class TrainStep(Step):
    """Training steps of one model on one batch; a call returns the loss before the last of its steps.

    Dropout is off, so that programs that compute the same have the same losses.

    Args:
        config: Model, optimiser and sizes; the weights are random, whatever the configuration says.
        batch: Batch, from `batches.train_batch`.
        balancing: Balancing method in place of the configuration's own.

    Attributes:
        weights: Initial weights under torch's names.
    """

    def __init__(
        self, config: Config, batch: Mapping[str, np.ndarray], balancing: task_balancing.Balancing | None = None
    ):
        mesh, run = sharding.make_mesh(), experiment.make(config)
        accumulate = config.train.accumulate
        sharding.check_batch_size(config.train.batch_size, mesh, "train.batch_size", accumulate)
        tx = run.optimizer(steps_per_epoch=1000)
        balancing = balancing or task_balancing.from_config(config)
        state = train_state.create(lambda: without_dropout(models.build(config)), tx, mesh, balancing=balancing)
        self.weights = {key: np.array(value) for key, value in weights.to_torch(state.model()).items()}
        self.flops = 6 * config.train.batch_size * cost.summarize(config).multiply_adds
        self._graphdef, self._arrays, self._batch = state.graphdef, state.arrays, sharding.shard_batch(batch, mesh)
        step = make_train_step(
            state.graphdef,
            run.objective,
            accumulate=accumulate,
            batch_norm_groups=config.train.batch_norm_groups,
            balancing=balancing,
        )
        self._step, self.costs = compile_step(step, self._arrays, self._batch)

    def __call__(self, steps: int = 1) -> float:
        for _ in range(steps):
            self._arrays, losses = self._step(self._arrays, self._batch)
        return float(losses["loss/total"])

    def again(self, change: Callable[[Any], Any]) -> "TrainStep":
        """Returns the same program on a copy of its arrays, with the state of the balancing method changed."""
        parts = nnx.merge(self._graphdef, jax.tree.map(jnp.copy, self._arrays))  # steps overwrite their arrays
        memory = parts[-1]
        memory.write(change(memory.read()))
        other = copy.copy(self)
        other._arrays = jax.tree.map(
            lambda new, old: jax.device_put(new, old.sharding), nnx.as_pure(nnx.state(parts)), self._arrays
        )
        return other


def programs(config: Config, ways: Sequence[str], reference: Any) -> dict[str, Program]:
    """Returns {name: program}: the one of this package, and one for each way to run PyTorch.

    Args:
        config: Model, optimiser and sizes.
        ways: Ways to run PyTorch.
        reference: The module parity.reference.speed; None where `ways` is empty.
    """
    batch = batches.train_batch(config)
    ours = TrainStep(config, batch)
    return {OURS: ours} | {f"torch {way}": reference.TrainStep(config, ours.weights, batch, way) for way in ways}


def deviation(ours: float, other: float) -> float:
    """Returns the relative difference of two losses."""
    return abs(other / ours - 1)


def without_dropout(model: nnx.Module) -> nnx.Module:
    """Switches the dropout of a model off, and returns the model."""
    for _, node in nnx.iter_graph(model):
        if isinstance(node, Dropout):
            node.rate = 0.0
    return model
