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
    labels = {}
    for task, channels in num_channels(run.config, run.all_tasks).items():
        match tasks.get(task).activation:
            case "argmax":
                labels[task] = rng.integers(0, channels, (*shape, 1), np.int32)
            case "unit_vector":
                vectors = rng.standard_normal((*shape, 3), np.float32)
                labels[task] = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
            case "sigmoid":
                labels[task] = (rng.random((*shape, 1), np.float32) < 0.1).astype(np.float32)
            case "identity":
                labels[task] = rng.uniform(1, 9, (*shape, 1)).astype(np.float32)
    return labels
