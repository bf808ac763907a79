"""Folding of batch norms into the convolutions before them, for inference."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_jax.nn.conv import Conv
from mtl_jax.nn.depthwise_conv import DepthwiseConv
from mtl_jax.nn.norm import EPSILON, BatchNorm
from mtl_jax.nn.sequential import Sequential

M = TypeVar("M", bound=nnx.Module)


class Folded(nnx.Module):
    """Identity `x -> x` in place of a batch norm that is folded into its convolution."""

    use_running_average = True

    def set_view(self, use_running_average: bool | None = None):
        """Sets attributes of a view; `nnx.view` calls it.

        Raises:
            ValueError: The view is for training.
        """
        if use_running_average is False:
            raise ValueError("a model with folded batch norms only predicts; train the model that it was made from")

    def __call__(self, x: jax.Array) -> jax.Array:
        return x


def fold_batch_norm(model: M) -> M:
    """Returns a copy of a model that predicts what `evaluation_view(model)` does, with batch norms folded.

    kernel' = kernel * factor and bias' = (bias - mean) * factor + beta, with factor = scale / sqrt(var + epsilon) of
    the running statistics, at least in float32. A batch norm belongs to the convolution before it in a `Sequential`,
    and as an attribute `bn1` to `conv1`, or `conv`, beside it: by our naming, which cannot be checked here, `conv1`'s
    output goes through `bn1` and nowhere else. Batch norms without a convolution stay.

    Raises:
        ValueError: a convolution or its batch norm is used elsewhere too, or the two do not go together.
    """
    folded = nnx.clone(model, graph=True)  # in every mode of Flax, so that shared modules are found below
    modules = list(nnx.iter_modules(folded, graph=True))
    uses = Counter(id(child) for _, module in modules for _, child in nnx.iter_children(module))
    for path, module in modules:
        for key, conv, norm in list(_pairs(module)):
            where = ".".join(map(str, (*path, key)))
            if uses[id(conv)] > 1 or uses[id(norm)] > 1:
                raise ValueError(f"batch norm {where} cannot be folded: it or its convolution is used elsewhere too")
            channels, features = conv.kernel.shape[-1], norm.scale.shape[0]
            if (channels, conv.dtype) != (features, norm.dtype):
                raise ValueError(
                    f"batch norm {where} of {features} channels in {norm.dtype} cannot be folded into a convolution "
                    f"with {channels} in {conv.dtype}; both must be the same"
                )
            _fold(conv, norm)
            if isinstance(module, Sequential):
                module[key] = Folded()
            else:
                setattr(module, key, Folded())
    return folded


def _pairs(module: nnx.Module) -> Iterator[tuple[Any, Conv | DepthwiseConv, BatchNorm]]:
    """(attribute or position of the batch norm, convolution, batch norm) among a module's children."""
    children: dict[Any, Any] = dict(nnx.iter_children(module))
    for key, norm in children.items():
        if isinstance(norm, BatchNorm):
            names = (key - 1,) if isinstance(module, Sequential) else (str(key).replace("bn", "conv", 1), "conv")
            conv = next((children[name] for name in names if name in children), None)
            if isinstance(conv, Conv | DepthwiseConv):
                yield key, conv, norm


def _fold(conv: Conv | DepthwiseConv, norm: BatchNorm) -> None:
    dtype = jnp.promote_types(conv.kernel.dtype, jnp.float32)
    scale, beta, mean, var = (x[...].astype(dtype) for x in (norm.scale, norm.bias, norm.mean, norm.var))
    factor = scale * jax.lax.rsqrt(var + EPSILON)
    offset = -mean if conv.bias is None else conv.bias[...] - mean
    conv.kernel = nnx.Param(conv.kernel[...].astype(dtype) * factor.reshape(1, 1, 1, -1))
    conv.bias = nnx.data(nnx.Param(offset * factor + beta))  # `data`: it may be None, which NNX takes for static
