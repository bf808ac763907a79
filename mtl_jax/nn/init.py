"""Initialisers."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike


def torch_uniform(key: jax.Array, shape: Sequence[int], fan_in: int, dtype: DTypeLike = jnp.float32) -> jax.Array:
    """uniform(±1/√fan_in): what torch draws for kernels *and* biases of convolutions and linear layers.

    The numbers are drawn on the host from a generator seeded with the key: a network has hundreds of shapes, and
    compiling `jax.random.uniform` for each of them takes longer than everything else before the first step.
    """
    bound = 1 / math.sqrt(fan_in)

    def draw(key_data: np.ndarray) -> np.ndarray:
        generator = np.random.default_rng(np.asarray(key_data).tolist())
        return generator.uniform(-bound, bound, tuple(shape)).astype(dtype)

    return jax.pure_callback(draw, jax.ShapeDtypeStruct(tuple(shape), dtype), jax.random.key_data(key))
