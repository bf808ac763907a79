"""Random predictions and labels for a loss, whatever kind of labels it is for."""

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.labels import ClassIds, Foreground, RealValues, UnitVectors
from mtl_jax.losses import kinds_of

SHAPE = (5, 7)


def pair(name: str, images: int, seed: int = 0) -> tuple[jax.Array, jax.Array]:
    """Prediction and label of a loss, with some pixels ignored."""
    rng = np.random.default_rng(seed)
    (kind,) = kinds_of(name)
    shape = (images, *SHAPE)
    label = {
        ClassIds: lambda: rng.integers(0, 3, (*shape, 1)),
        Foreground: lambda: rng.random((*shape, 1)) < 0.2,
        RealValues: lambda: rng.uniform(1, 9, (*shape, 1)),
        UnitVectors: lambda: unit(rng.standard_normal((*shape, 3))),
    }[kind]()
    channels = {ClassIds: 3, UnitVectors: 3}.get(kind, 1)
    label = np.where(rng.random((*shape, 1)) < 0.1, 255, label)
    prediction = rng.standard_normal((*shape, channels))
    return jnp.asarray(prediction, jnp.float32), jnp.asarray(label, jnp.float32)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
