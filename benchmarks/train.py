"""A training step on a random batch."""

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

# Of the first step's loss, relative.
TOLERANCE = {"float32": 1e-4, "tf32": 1e-2, "bfloat16": 3e-2}


class TrainStep(Step):
    """A model that learns one batch by heart; the result of a call is the loss before the last of its steps.

    Dropout is off, so that the losses of programs that do the same are the same.

    Args:
        config: model, optimiser and sizes; the weights are random, whatever it says of pretrained ones.
        batch: from `batches.train_batch`.
        balancing: what balances the tasks, in place of the configuration's method.

    Attributes:
        weights: the initial ones, under torch's names.
    """

    def __init__(
        self, config: Config, batch: Mapping[str, np.ndarray], balancing: task_balancing.Balancing | None = None
    ):
        mesh = sharding.make_mesh()
        accumulate = config.train.accumulate
        sharding.check_batch_size(config.train.batch_size, mesh, "train.batch_size", accumulate)
        tx = experiment.build_optimizer(config, steps_per_epoch=1000)
        balancing = balancing or task_balancing.from_config(config)
        state = train_state.create(lambda: _without_dropout(models.build(config)), tx, mesh, balancing=balancing)
        self.weights = {key: np.array(value) for key, value in weights.to_torch(state.model()).items()}
        self.flops = 6 * config.train.batch_size * cost.summarize(config).multiply_adds
        self._graphdef, self._arrays, self._batch = state.graphdef, state.arrays, sharding.shard_batch(batch, mesh)
        step = make_train_step(
            state.graphdef,
            experiment.build_objective(config),
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
        """The same program from the arrays that this one has now, with a balancing method's state changed."""
        parts = nnx.merge(self._graphdef, jax.tree.map(jnp.copy, self._arrays))  # each writes over its own
        memory = parts[-1]
        memory.write(change(memory.read()))
        other = copy.copy(self)
        other._arrays = jax.tree.map(
            lambda new, old: jax.device_put(new, old.sharding), nnx.as_pure(nnx.state(parts)), self._arrays
        )
        return other


def programs(config: Config, ways: Sequence[str], reference: Any) -> dict[str, Program]:
    """{name: program}: ours, and PyTorch's in these ways.

    Args:
        reference: the module parity.reference.speed; not needed without ways.
    """
    batch = batches.train_batch(config)
    ours = TrainStep(config, batch)
    return {OURS: ours} | {f"torch {way}": reference.TrainStep(config, ours.weights, batch, way) for way in ways}


def deviation(ours: float, other: float) -> float:
    """Relative difference of two losses."""
    return abs(other / ours - 1)


def _without_dropout(model: nnx.Module) -> nnx.Module:
    for _, node in nnx.iter_graph(model):
        if isinstance(node, Dropout):
            node.rate = 0.0
    return model
