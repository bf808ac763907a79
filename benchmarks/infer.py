"""Prediction of a batch on the device: bytes in; class maps, probabilities, directions and metres out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from benchmarks import batches
from benchmarks.comparison import OURS, Program, Step
from benchmarks.compiled import compile_step
from mtl_jax import models, weights
from mtl_jax.config import Config, main_tasks
from mtl_jax.models import MultiTaskModel
from mtl_jax.nn.fold import fold_batch_norm
from mtl_jax.reports import cost
from mtl_jax.runtime import sharding
from mtl_jax.train import state as train_state
from mtl_jax.train.step import make_predict_step

# Largest `deviation`. Class maps of random weights have many near ties.
TOLERANCE = {"float32": 2e-4, "tf32": 1e-2, "bfloat16": 5e-2}


class ForwardStep(Step):
    """A step of a network that does not learn.

    Args:
        config: Sizes and tasks.
        model: The model with its weights.
        batch: Batch `{name: [B, ...]}`.
        make_step: Function (graphdef, mesh) -> jitted step(arrays, batch).
        size_option: Name of the option that sets the batch size, for errors.
    """

    def __init__(
        self,
        config: Config,
        model: MultiTaskModel,
        batch: Mapping[str, np.ndarray],
        make_step: Callable[[nnx.GraphDef, Mesh], Callable[..., Any]],
        size_option: str,
    ):
        mesh = sharding.make_mesh()
        sharding.check_batch_size(config.train.batch_size, mesh, size_option)
        state = train_state.create(lambda: model, optax.identity(), mesh)
        self.flops = 2 * config.train.batch_size * cost.summarize(config).multiply_adds
        self._arrays, self._batch = state.arrays, sharding.shard_batch(batch, mesh)
        self._step, self.costs = compile_step(make_step(state.graphdef, mesh), self._arrays, self._batch)


class PredictStep(ForwardStep):
    """Normalises images, runs the network and turns its logits into predictions; a call returns the predictions."""

    def __init__(self, config: Config, model: MultiTaskModel, batch: Mapping[str, np.ndarray]):
        named = {name: batch[name] for name in ("image", "index", "valid")}
        tasks = main_tasks(config)
        super().__init__(
            config, model, named, lambda graphdef, mesh: make_predict_step(graphdef, tasks, mesh), "--infer_batch"
        )

    def __call__(self, steps: int = 1) -> dict[str, jax.Array]:
        for _ in range(steps):
            _, _, predictions = self._step(self._arrays, self._batch)
        return jax.block_until_ready(predictions)


def programs(config: Config, ways: Sequence[str], reference: Any) -> dict[str, Program]:
    """Returns {name: program}: those of this package, with batch norms folded into convolutions and not, and PyTorch's.

    Args:
        config: Model and sizes.
        ways: Ways to run PyTorch, which have a program each.
        reference: The module parity.reference.speed; None where `ways` is empty.
    """
    batch = batches.eval_batch(config)
    model = models.build(config)
    ours: dict[str, Program] = {
        f"{OURS} folded": PredictStep(config, fold_batch_norm(model), batch),
        OURS: PredictStep(config, model, batch),
    }
    arrays = weights.to_torch(model)
    return ours | {f"torch {way}": reference.PredictStep(config, arrays, batch, way) for way in ways}


def deviation(ours: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Returns the deviation of the worst task.

    It is the share of pixels with another class, or the root mean square of the difference divided by that of ours.
    """
    worst = []
    for task, value in ours.items():
        a, b = _on_host(value), _on_host(other[task])
        if np.issubdtype(a.dtype, np.integer):
            worst.append(np.mean(a != b))
        else:
            worst.append(np.sqrt(np.mean(np.square(a - b)) / np.mean(np.square(a))))
    return float(max(worst))


def _on_host(value: Any) -> np.ndarray:
    """Returns the values of an array of JAX or a tensor of PyTorch."""
    return np.asarray(value.cpu() if hasattr(value, "cpu") else value)
