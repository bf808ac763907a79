"""The computation dtype of layers, set once around the code that builds a model."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from flax.typing import Dtype

_COMPUTE_DTYPE: ContextVar[Dtype | None] = ContextVar("compute_dtype", default=None)


@contextlib.contextmanager
def compute_dtype(dtype: Dtype | None) -> Iterator[None]:
    """Sets the computation dtype of the layers that are constructed inside the `with` block.

    `Conv`, `Linear` and `BatchNorm` read it once, in their constructor, unless they are given a `dtype` of their own::

        with nn.compute_dtype(jnp.bfloat16):
            block = nn.Bottleneck(64, 64, rngs=rngs)

    Args:
        dtype: The dtype that layers compute in. None stands for the promoted dtype of input and parameters.
    """
    token = _COMPUTE_DTYPE.set(dtype)
    try:
        yield
    finally:
        _COMPUTE_DTYPE.reset(token)


def layer_dtype(dtype: Dtype | None) -> Dtype | None:
    """Returns a layer's own dtype, or the one that `compute_dtype` sets where the layer has none."""
    return _COMPUTE_DTYPE.get() if dtype is None else dtype
