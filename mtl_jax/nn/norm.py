"""Batch normalisation with the semantics of torch."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from mtl_jax.nn.dtype import layer_dtype

EPSILON = 1e-5


class BatchNorm(nnx.Module):
    """Batch normalisation over all axes but the last (arXiv 1502.03167), as torch computes it.

    Training normalises with the biased batch variance and moves the running variance towards the *unbiased* one;
    `running = (1 - momentum) * running + momentum * batch`, so `momentum` has the meaning of torch, not of Flax.
    Statistics are at least float32 whatever the computation dtype. Under jit over a sharded batch they are those of the
    global batch.

    A view with `batch_norm_groups=G` normalises a training batch in G parts of consecutive images, each with its own
    mean and biased variance, as G devices do under torch's DataParallel, or under DistributedDataParallel without
    SyncBatchNorm. Gradients stay within parts. The running statistics follow the first part alone, as in torch:
    DataParallel keeps the buffers of its first replica, and DistributedDataParallel copies the buffers of rank 0 to all
    devices. The number of parts is independent of the number of devices here; if one divides the other, no image moves
    between devices.

    Args:
        features: Size of the last axis.
        momentum: Weight of a new batch in the running statistics.
        epsilon: What is added to the variance; networks from TensorFlow have 1e-3.
        dtype: Dtype of the result; None takes the dtype of `compute_dtype`, or else the promoted dtype of input and
            parameters.
    """

    def __init__(self, features: int, *, momentum: float = 0.1, epsilon: float = EPSILON, dtype: Dtype | None = None):
        self.scale = nnx.Param(jnp.ones((features,)))
        self.bias = nnx.Param(jnp.zeros((features,)))
        self.mean = nnx.BatchStat(jnp.zeros((features,)))
        self.var = nnx.BatchStat(jnp.ones((features,)))
        self.momentum = momentum
        self.epsilon = epsilon
        self.dtype = layer_dtype(dtype)
        self.use_running_average = False
        self.batch_norm_groups = 1

    def set_view(self, use_running_average: bool | None = None, batch_norm_groups: int | None = None):
        """Sets attributes of a view; `nnx.view` calls it.

        Args:
            use_running_average: True to normalise with the running statistics and leave them unchanged.
            batch_norm_groups: Number of parts of a training batch that have statistics of their own; it has no effect
                with `use_running_average`.
        """
        if use_running_average is not None:
            self.use_running_average = use_running_average
        if batch_norm_groups is not None:
            self.batch_norm_groups = batch_norm_groups

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[..., C] -> [..., C]`; with groups, the first axis numbers the images: `[B, ..., C] -> [B, ..., C]`.

        Raises:
            ValueError: In training, the variance of a channel with a single value is undefined, or the number of groups
                does not divide the number of images.
        """
        groups = self.batch_norm_groups
        if self.use_running_average or groups == 1:
            return self._normalise(x)
        if x.shape[0] % groups:
            raise ValueError(
                f"train.batch_norm_groups is {groups}, which does not divide a batch of {x.shape[0]} images (input "
                f"{x.shape}); the groups must be equal: make train.batch_size / train.accumulate a multiple of it"
            )
        return self._normalise(x.reshape(groups, x.shape[0] // groups, *x.shape[1:]), grouped=True).reshape(x.shape)

    def _normalise(self, x: jax.Array, grouped: bool = False) -> jax.Array:
        """`[..., C] -> [..., C]`; in training, with the statistics of each entry of the first axis if `grouped`."""
        broadcast = (1,) * (x.ndim - 1) + (-1,)
        stats_dtype = jnp.promote_types(x.dtype, self.mean.dtype)
        out_dtype = self.dtype or stats_dtype
        y = x.astype(stats_dtype)
        if self.use_running_average:
            mean, var = self.mean[...].reshape(broadcast), self.var[...].reshape(broadcast)
        else:
            axes = tuple(range(grouped, x.ndim - 1))
            count = math.prod(x.shape[axis] for axis in axes)
            if count < 2:
                shape = f"{x.shape[1:]} in each of {x.shape[0]} groups" if grouped else f"{x.shape}"
                fewer = ", a smaller train.batch_norm_groups" if grouped else ""
                raise ValueError(
                    f"batch normalisation in training needs at least 2 values per channel, got {count} (input "
                    f"{shape}); use a larger batch size{fewer} or larger images"
                )
            mean = y.mean(axes, keepdims=True)
            var = jnp.square(y - mean).mean(axes, keepdims=True)
            first_mean, first_var = (mean[0], var[0]) if grouped else (mean, var)
            self._update(first_mean.reshape(-1), first_var.reshape(-1) * (count / (count - 1)))
        factor = jax.lax.rsqrt(var + self.epsilon) * self.scale[...].reshape(broadcast)
        return ((y - mean) * factor + self.bias[...].reshape(broadcast)).astype(out_dtype)

    def _update(self, mean: jax.Array, var: jax.Array):
        for running, batch in ((self.mean, mean), (self.var, var)):
            running.set_value((1 - self.momentum) * running[...] + self.momentum * jax.lax.stop_gradient(batch))
