"""Scoring of a batch during training: prediction and statistics on the device, scores on the host.

PyTorch's side predicts on the device and computes the same scores on the host as parity/reference/metrics.py does:
image by image, in float64. It shows the cost of a scorer that is not made for speed; `infer` compares the networks
alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import batches
from benchmarks.comparison import OURS, Program
from benchmarks.infer import ForwardStep
from mtl_jax import experiment, models, weights
from mtl_jax.config import Config
from mtl_jax.metrics import Accumulator
from mtl_jax.models import MultiTaskModel
from mtl_jax.train.step import make_eval_step

Scores = dict[str, float]
# Largest relative difference of a score. Few pixels change sides where predictions are random.
TOLERANCE = {"float32": 1e-4, "tf32": 3e-2, "bfloat16": 5e-2}


class EvalStep(ForwardStep):
    """Predicts, collects statistics, and scores on the host; the result of a call is {task: deciding score}."""

    def __init__(self, config: Config, model: MultiTaskModel, batch: Mapping[str, np.ndarray]):
        run = experiment.make(config)
        metrics = self._metrics = run.streaming_metrics
        self._criteria = run.streaming_criteria
        named = {name: batch[name] for name in ("image", "valid", *metrics)}
        super().__init__(
            config, model, named, lambda graphdef, mesh: make_eval_step(graphdef, metrics, mesh), "train.batch_size"
        )

    def __call__(self, steps: int = 1) -> Scores:
        for _ in range(steps):
            valid, stats = self._step(self._arrays, self._batch)
            scores: dict[str, Any] = {}
            for task, metric in self._metrics.items():
                accumulator = Accumulator(metric)
                accumulator.update(stats[task], valid)
                scores[task] = accumulator.compute()[self._criteria[task].name]
        return scores


def programs(config: Config, ways: Sequence[str], reference: Any) -> dict[str, Program]:
    """Returns {name: program}: the one of this package, and one for each way to run PyTorch.

    Args:
        config: Model and sizes.
        ways: Ways to run PyTorch.
        reference: The module parity.reference.speed; None where `ways` is empty.
    """
    batch = batches.eval_batch(config)
    model = models.build(config)
    arrays = weights.to_torch(model)
    return {OURS: EvalStep(config, model, batch)} | {
        f"torch {way}": reference.EvalStep(config, arrays, batch, way) for way in ways
    }


def deviation(ours: Scores, other: Scores) -> float:
    """Returns the largest relative difference of a score."""
    return max(abs(other[task] - score) / max(abs(score), 1e-12) for task, score in ours.items())
