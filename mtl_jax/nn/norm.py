"""Batch normalisation with torch's semantics."""

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

EPSILON = 1e-5


class BatchNorm(nnx.Module):
    """Batch normalisation over all axes but the last (arXiv 1502.03167), as torch computes it.

    Training normalises with the biased batch variance and moves the running variance towards the *unbiased* one;
    `running = (1 - momentum) * running + momentum * batch`, so `momentum` is torch's, not Flax's. Statistics are at
    least float32 whatever the computation dtype. Under jit over a sharded batch they are those of the global batch.

    Args:
        features: size of the last axis.
        momentum: weight of the new batch in the running statistics.
        dtype: dtype of the result; None keeps the promoted dtype of input and parameters.
    """

    def __init__(self, features: int, *, momentum: float = 0.1, dtype: Dtype | None = None):
        self.scale = nnx.Param(jnp.ones((features,)))
        self.bias = nnx.Param(jnp.zeros((features,)))
        self.mean = nnx.BatchStat(jnp.zeros((features,)))
        self.var = nnx.BatchStat(jnp.ones((features,)))
        self.momentum = momentum
        self.dtype = dtype
        self.use_running_average = False

    def set_view(self, use_running_average: bool | None = None):
        """Called by `nnx.view`: True normalises with the running statistics and leaves them alone."""
        if use_running_average is not None:
            self.use_running_average = use_running_average

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[..., C] -> [..., C]`.

        Raises:
            ValueError: in training, when there is a single value per channel, whose variance is undefined.
        """
        broadcast = (1,) * (x.ndim - 1) + (-1,)
        stats_dtype = jnp.promote_types(x.dtype, self.mean.dtype)
        out_dtype = self.dtype or stats_dtype
        y = x.astype(stats_dtype)
        if self.use_running_average:
            mean, var = self.mean[...].reshape(broadcast), self.var[...].reshape(broadcast)
        else:
            count = x.size // x.shape[-1]
            if count < 2:
                raise ValueError(
                    f"batch normalisation in training needs at least 2 values per channel, got 1 (input {x.shape}); "
                    "use a larger batch size or larger images"
                )
            axes = tuple(range(x.ndim - 1))
            mean = y.mean(axes, keepdims=True)
            var = jnp.square(y - mean).mean(axes, keepdims=True)
            self._update(mean.reshape(-1), var.reshape(-1) * (count / (count - 1)))
        factor = jax.lax.rsqrt(var + EPSILON) * self.scale[...].reshape(broadcast)
        return ((y - mean) * factor + self.bias[...].reshape(broadcast)).astype(out_dtype)

    def _update(self, mean: jax.Array, var: jax.Array):
        for running, batch in ((self.mean, mean), (self.var, var)):
            running.set_value((1 - self.momentum) * running[...] + self.momentum * jax.lax.stop_gradient(batch))
