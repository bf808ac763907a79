"""Initialisers `init(key, shape) -> array` for kernels `[..., in, out]`.

The numbers are drawn on the host from a generator seeded with the key: a network has hundreds of shapes, and compiling
a `jax.random` function for each of them takes longer than everything else before the first step.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

Initializer = Callable[[jax.Array, tuple[int, ...]], jax.Array]


def torch_uniform(key: jax.Array, shape: tuple[int, ...], fan_in: int | None = None) -> jax.Array:
    """Draws from uniform(±1/√fan_in), torch's default for kernels *and* biases of convolutions and linear layers.

    Args:
        key: Random key.
        shape: Shape of the result.
        fan_in: Number of inputs of an output; by default that of a kernel of this shape.
    """
    bound = 1 / math.sqrt(math.prod(shape[:-1]) if fan_in is None else fan_in)
    return _draw(key, shape, lambda generator: generator.uniform(-bound, bound, shape))


def he_normal_fan_out(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws from N(0, 2 / fan_out), fan_out = kernel area * out (arXiv 1502.01852, eq. 14), as in torchvision."""
    std = math.sqrt(2 / (math.prod(shape[:-2]) * shape[-1]))
    return _draw(key, shape, lambda generator: generator.normal(0, std, shape))


def he_normal_depthwise(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws from N(0, 2 / kernel area) for depthwise kernels `[kh, kw, 1, C]`, each of which has one output channel."""
    std = math.sqrt(2 / math.prod(shape[:2]))
    return _draw(key, shape, lambda generator: generator.normal(0, std, shape))


def trunc_normal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws from N(0, 0.02^2), as for the linear layers and embeddings of vision transformers.

    timm and DINOv2 call it truncated at ±2. That is a hundred standard deviations away, where nothing is cut.
    """
    return _draw(key, shape, lambda generator: generator.normal(0, 0.02, shape))


def initial_bias(kernel_init: Initializer, features: int, fan_in: int, rngs: nnx.Rngs) -> jax.Array:
    """Returns the bias `[features]` that belongs to an initialiser of kernels: torch's for torch's, 0 for any other.

    Args:
        kernel_init: Initialiser of the kernel.
        features: Number of outputs.
        fan_in: Number of inputs of an output.
        rngs: Source of the initial weights; zeros take no key from it.
    """
    if kernel_init is torch_uniform:
        return torch_uniform(rngs.params(), (features,), fan_in)
    return jnp.zeros((features,))


def _draw(key: jax.Array, shape: tuple[int, ...], sample: Callable[[np.random.Generator], np.ndarray]) -> jax.Array:
    def draw(key_data: jax.Array) -> np.ndarray:
        return sample(np.random.default_rng(np.asarray(key_data).tolist())).astype(np.float32)

    key_data = jax.random.key_data(key)
    if isinstance(key_data, jax.core.Tracer):
        return jax.pure_callback(draw, jax.ShapeDtypeStruct(shape, jnp.float32), key_data)
    return jnp.asarray(draw(key_data))  # JAX would compile every callback anew
