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
    labels = {}
    for task, channels in num_channels(config, all_tasks(config)).items():
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
