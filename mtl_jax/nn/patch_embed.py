"""The patch embedding of vision transformers."""

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from flax.typing import Dtype

from mtl_jax.nn.conv import check_map
from mtl_jax.nn.dtype import layer_dtype
from mtl_jax.nn.init import Initializer, initial_bias, torch_uniform
from mtl_jax.nn.per_channel import per_channel
from mtl_jax.nn.remat import recomputable


class PatchProjection(nnx.Module):
    """Convolution whose kernel is as large as its stride, without padding: `[B, H, W, in] -> [B, H/p, W/p, out]`.

    Rows and columns at the end that fill no kernel are left out, as in torch.

    Args:
        in_features: Number of input channels.
        out_features: Number of output channels.
        patch: Side p of the kernel and stride in pixels.
        kernel_init: Initialiser of the kernel; the bias follows as in `Linear`.
        dtype: Computation dtype, as for `Conv`.
        rngs: Source of the initial weights.

    Raises:
        ValueError: The input of a call is not `[B, H, W, in]`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        patch: int,
        *,
        kernel_init: Initializer = torch_uniform,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        self.kernel = nnx.Param(kernel_init(rngs.params(), (patch, patch, in_features, out_features)))
        self.bias = nnx.Param(initial_bias(kernel_init, out_features, patch * patch * in_features, rngs))
        self.patch = patch
        self.dtype = layer_dtype(dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        check_map(x, self.kernel.shape[2])
        x, kernel = promote_dtype((x, self.kernel[...]), dtype=self.dtype)
        p, rows, columns = self.patch, x.shape[1] // self.patch, x.shape[2] // self.patch
        patches = x[:, : rows * p, : columns * p].reshape(x.shape[0], rows, p, columns, p, x.shape[3])
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
