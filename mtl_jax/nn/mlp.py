"""The perceptrons of transformer blocks. The names of their layers are those of published weights."""

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_jax.nn.conv import Linear
from mtl_jax.nn.init import trunc_normal


class Mlp(nnx.Module):
    """fc2(GELU(fc1(x))) with the exact GELU: `[..., C] -> [..., C]`.

    Args:
        features: Number of channels C.
        hidden: Number of hidden units.
        rngs: Source of the initial weights.
    """

    def __init__(self, features: int, hidden: int, *, rngs: nnx.Rngs):
        self.fc1 = Linear(features, hidden, kernel_init=trunc_normal, rngs=rngs)
        self.fc2 = Linear(hidden, features, kernel_init=trunc_normal, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(nnx.gelu(self.fc1(x), approximate=False))


class PackedSwiGLU(nnx.Module):
    """w3(SiLU(a) * b) with [a, b] = w12(x) (arXiv 2002.05202), as in DINOv2's giant model: `[..., C] -> [..., C]`.

    Args:
        features: Number of channels C.
        hidden: Number of channels of a and of b.
        rngs: Source of the initial weights.
    """

    def __init__(self, features: int, hidden: int, *, rngs: nnx.Rngs):
        self.w12 = Linear(features, 2 * hidden, kernel_init=trunc_normal, rngs=rngs)
        self.w3 = Linear(hidden, features, kernel_init=trunc_normal, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        gate, value = jnp.split(self.w12(x), 2, axis=-1)
        return self.w3(nnx.silu(gate) * value)


class SwiGLU(nnx.Module):
    """fc2(SiLU(fc1_g(x)) * fc1_x(x)) (arXiv 2002.05202), as in DINOv3's "plus" models: `[..., C] -> [..., C]`.

    Args:
        features: Number of channels C.
        hidden: Number of hidden units.
        rngs: Source of the initial weights.
    """

    def __init__(self, features: int, hidden: int, *, rngs: nnx.Rngs):
        self.fc1_g = Linear(features, hidden, kernel_init=trunc_normal, rngs=rngs)
        self.fc1_x = Linear(features, hidden, kernel_init=trunc_normal, rngs=rngs)
        self.fc2 = Linear(hidden, features, kernel_init=trunc_normal, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(nnx.silu(self.fc1_g(x)) * self.fc1_x(x))
