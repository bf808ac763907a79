"""Layers applied one after the other."""

import jax
from flax import nnx


class Sequential(nnx.List):
    """A list of modules and functions, called in turn.

    Unlike `nnx.Sequential` it adds no level to the state's paths, so `heads.semseg.last_layer.3.kernel` names the same
    layer as torch's `heads.semseg.last_layer.3.weight`: functions such as `nnx.relu` count as positions too.
    """

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self:
            x = layer(x)
        return x
