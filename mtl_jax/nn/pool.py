"""Max-pooling."""

import jax
from flax import nnx


def max_pool_stem(x: jax.Array) -> jax.Array:
    """Max-pools 3x3 at stride 2, padded by 1 with -infinity: `[B, H, W, C] -> [B, ceil(H / 2), ceil(W / 2), C]`."""
    return nnx.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))


def max_pool_2x2(x: jax.Array) -> jax.Array:
    """Max-pools 2x2 at stride 2: `[B, H, W, C] -> [B, ceil(H / 2), ceil(W / 2), C]`, rounding as strided layers do."""
    return nnx.max_pool(x, (2, 2), (2, 2), padding=((0, x.shape[1] % 2), (0, x.shape[2] % 2)))
