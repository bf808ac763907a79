"""A training step on a random batch."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import nnx

from mtl_jax import experiment, models, parallel, summary, tasks, weights
from mtl_jax.benchmark.timing import Timed, call
from mtl_jax.config import Config, all_tasks, num_channels
from mtl_jax.nn import Dropout
from mtl_jax.train import state as train_state
from mtl_jax.train.step import make_train_step

Arrays = dict[str, np.ndarray]


def random_batch(config: Config, seed: int = 0) -> Arrays:
    """Normalised images `[B, H, W, 3]` and a label `[B, H, W, C]` of every task, of the configured sizes."""
    rng = np.random.default_rng(seed)
    shape = (config.train.batch_size, *experiment.image_size(config))
    batch = {"image": rng.standard_normal((*shape, 3), np.float32)}
    for task, channels in num_channels(config, all_tasks(config)).items():
        match tasks.get(task).activation:
            case "argmax":
                batch[task] = rng.integers(0, channels, (*shape, 1), np.int32)
            case "unit_vector":
                vectors = rng.standard_normal((*shape, 3), np.float32)
                batch[task] = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
            case "sigmoid":
                batch[task] = (rng.random((*shape, 1), np.float32) < 0.1).astype(np.float32)
            case "identity":
                batch[task] = rng.uniform(1, 9, (*shape, 1)).astype(np.float32)
    return batch


class TrainStep:
    """A model that learns one batch by heart; every call is a training step and returns the loss before it.

    Dropout is off, so that the losses of programs that do the same are the same.

    Args:
        config: model, optimiser and sizes; the weights are random, whatever it says of pretrained ones.
        batch: from `random_batch`.

    Attributes:
        weights: the initial ones, under torch's names.
        flops: of a step: two for every multiply-add of the forward pass, and twice as many of the backward pass.
        analysis: what XLA says of the compiled step: "bytes accessed" and "temporary bytes".
        lowering: seconds until the program was written down.
        compilation: seconds until it was compiled.
    """

    def __init__(self, config: Config, batch: Mapping[str, np.ndarray]):
        mesh = parallel.make_mesh()
        parallel.check_batch_size(config.train.batch_size, mesh, "train.batch_size")
        tx = experiment.build_optimizer(config, steps_per_epoch=1000)
        state = train_state.create(lambda: _without_dropout(models.build(config)), tx, mesh)
        self.weights: Arrays = {key: np.array(value) for key, value in weights.to_torch(state.model()).items()}
        self.flops = 6 * config.train.batch_size * summary.summarize(config).multiply_adds
        self._arrays, self._batch = state.arrays, parallel.shard_batch(batch, mesh)
        step: Any = make_train_step(state.graphdef, experiment.build_objective(config))
        self.lowering, lowered = call(lambda: step.lower(self._arrays, self._batch))
        self.compilation, self._step = call(lowered.compile)
        memory = self._step.memory_analysis()
        self.analysis: dict[str, float] = {
            "bytes accessed": self._step.cost_analysis()["bytes accessed"],
            "temporary bytes": memory.temp_size_in_bytes,
        }

    def __call__(self) -> float:
        self._arrays, losses = self._step(self._arrays, self._batch)
        return float(losses["loss/total"])


def _without_dropout(model: nnx.Module) -> nnx.Module:
    for _, node in nnx.iter_graph(model):
        if isinstance(node, Dropout):
            node.rate = 0.0
    return model


def table(timed: Mapping[str, Timed], batch_size: int) -> str:
    """The programs as Markdown; the first one is compared with the others."""
    first = next(iter(timed.values()))
    lines = [
        "| program | seconds a step (spread) | images/s | first step | mtl_jax is |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, found in timed.items():
        spread = f"{found.median:.3f} ({min(found.seconds):.3f} to {max(found.seconds):.3f})"
        ratio = "" if found is first else f"{found.median / first.median:.2f}x"
        rate = batch_size / found.median
        lines.append(f"| {name} | {spread} | {rate:.2f} | {found.first:.1f} s | {ratio} |")
    return "\n".join(lines)


def describe(step: TrainStep, timed: Timed, peak: float, bandwidth: float) -> str:
    """Compilation, memory, and the shares of the device's peaks that a step reaches.

    Args:
        peak: floating-point operations a second, see `device.matmul_flops`.
        bandwidth: bytes a second.
    """
    rate, moved = step.flops / timed.median, step.analysis["bytes accessed"] / timed.median
    return (
        f"compilation: {step.lowering:.1f} s to trace and lower, {step.compilation:.1f} s to compile\n"
        f"temporary memory: {step.analysis['temporary bytes'] / 2**30:.2f} GiB\n"
        f"{rate / 1e9:.0f} GFLOP/s of the model, {rate / peak:.0%} of a matrix product's {peak / 1e9:.0f}\n"
        f"{moved / 1e9:.1f} GB/s as XLA counts them, {moved / bandwidth:.0%} of the {bandwidth / 1e9:.1f} of a copy"
    )
