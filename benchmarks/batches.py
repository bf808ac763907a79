"""Random batches of the configured sizes."""

import numpy as np

from mtl_jax import experiment, tasks
from mtl_jax.config import Config, num_channels
from mtl_jax.experiment import Experiment

Arrays = dict[str, np.ndarray]


def train_batch(config: Config, seed: int = 0) -> Arrays:
    """Returns `train.batch_size` normalised images `[B, H, W, 3]` and labels `[B, H, W, C]` of every task."""
    run, rng = experiment.make(config), np.random.default_rng(seed)
    shape = (config.train.batch_size, *run.image_size)
    return {"image": rng.standard_normal((*shape, 3), np.float32), **_labels(run, shape, rng)}


def eval_batch(config: Config, seed: int = 0) -> Arrays:
    """Returns `train_batch` with images of bytes and with "index" and "valid" `[B]`, as the input pipeline does."""
    run, rng = experiment.make(config), np.random.default_rng(seed)
    shape = (config.train.batch_size, *run.image_size)
    return {
        "image": rng.integers(0, 256, (*shape, 3), np.uint8),
        "index": np.arange(shape[0]),
        "valid": np.ones(shape[0], bool),
        **_labels(run, shape, rng),
    }


def _labels(run: Experiment, shape: tuple[int, ...], rng: np.random.Generator) -> Arrays:
    channels = num_channels(run.config, run.all_tasks)
    return {task: tasks.get(task).kind.draw_random(rng, shape, number) for task, number in channels.items()}
