"""Training steps whose tasks different methods balance, beside the step of fixed weights."""

from collections.abc import Sequence
from dataclasses import replace

from mtl_jax.benchmark import batches, train
from mtl_jax.benchmark.comparison import Program
from mtl_jax.config import PLAIN_BALANCING, Config


def programs(config: Config, methods: Sequence[str]) -> dict[str, Program]:
    """{method: its step}, that of fixed weights first; from the same weights and batch.

    Args:
        methods: as in `Config.balancing`.
    """
    batch = batches.train_batch(config)
    return {method: train.TrainStep(replace(config, balancing=method), batch) for method in (PLAIN_BALANCING, *methods)}
