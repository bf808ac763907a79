"""The patch embedding of vision transformers."""

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from flax.typing import Dtype

from mtl_jax.nn.dtype import layer_dtype
from mtl_jax.nn.init import torch_uniform
from mtl_jax.nn.per_channel import per_channel
from mtl_jax.nn.remat import recomputable


class PatchProjection(nnx.Module):
    """Convolution whose kernel is as large as its stride, without padding: `[B, H, W, in] -> [B, H/p, W/p, out]`.

    Args:
        in_features: Number of input channels.
        out_features: Number of output channels.
        patch: Side p of the kernel and stride in pixels.
        dtype: Computation dtype, as for `Conv`.
        rngs: Source of the initial weights.
    """

    def __init__(self, in_features: int, out_features: int, patch: int, *, dtype: Dtype | None = None, rngs: nnx.Rngs):
        shape = (patch, patch, in_features, out_features)
        self.kernel = nnx.Param(torch_uniform(rngs.params(), shape))
        self.bias = nnx.Param(torch_uniform(rngs.params(), (out_features,), patch * patch * in_features))
        self.patch = patch
        self.dtype = layer_dtype(dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        x, kernel = promote_dtype((x, self.kernel[...]), dtype=self.dtype)
        p = self.patch
        patches = x.reshape(x.shape[0], x.shape[1] // p, p, x.shape[2] // p, p, x.shape[3])
        y = jnp.einsum("bhpwqi,pqio->bhwo", patches, kernel)
        return y + per_channel(self.bias[...], y)


class PatchEmbed(nnx.Module):
    """Images to patch tokens: `[B, H, W, 3] -> [B, H/p, W/p, C]`.

    Args:
        features: Number of channels C.
        patch: Side p of a patch in pixels.
        rngs: Source of the initial weights.

    Raises:
        ValueError: The sides of the images of a call are not multiples of the patch.
    """

    def __init__(self, features: int, patch: int, *, rngs: nnx.Rngs):
        self.proj = PatchProjection(3, features, patch, rngs=rngs)

    @recomputable
    def __call__(self, images: jax.Array) -> jax.Array:
        height, width = images.shape[1:3]
        patch = self.proj.patch
        if height % patch or width % patch:
            raise ValueError(
                f"images of {height}x{width} pixels do not divide into patches of {patch}x{patch}; resize or pad them "
                f"to multiples of {patch}"
            )
        return self.proj(images)
