"""Random batches of the configured sizes."""

import numpy as np

from mtl_jax import experiment, tasks
from mtl_jax.config import Config, all_tasks, num_channels

Arrays = dict[str, np.ndarray]


def train_batch(config: Config, seed: int = 0) -> Arrays:
    """Normalised images `[B, H, W, 3]` and a label `[B, H, W, C]` of every task, `train.batch_size` of them."""
    rng = np.random.default_rng(seed)
    shape = (config.train.batch_size, *experiment.image_size(config))
    return {"image": rng.standard_normal((*shape, 3), np.float32), **_labels(config, shape, rng)}


def eval_batch(config: Config, seed: int = 0) -> Arrays:
    """The same with images of bytes, as the input pipeline delivers them: "index" and "valid" `[B]` come along."""
    rng = np.random.default_rng(seed)
    shape = (config.train.batch_size, *experiment.image_size(config))
    return {
        "image": rng.integers(0, 256, (*shape, 3), np.uint8),
        "index": np.arange(shape[0]),
        "valid": np.ones(shape[0], bool),
        **_labels(config, shape, rng),
    }


def _labels(config: Config, shape: tuple[int, ...], rng: np.random.Generator) -> Arrays:
    channels = num_channels(config, all_tasks(config))
    return {task: tasks.get(task).kind.draw_random(rng, shape, number) for task, number in channels.items()}
