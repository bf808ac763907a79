"""A sequence of layers."""

from typing import Any

from flax import nnx


class Sequential(nnx.List):
    """A list of modules and functions that are called one after the other.

    Unlike `nnx.Sequential` it adds no level to the state's paths, so `heads.semseg.last_layer.3.kernel` names the same
    layer as torch's `heads.semseg.last_layer.3.weight`: functions such as `nnx.relu` count as positions too.
    """

    def __call__(self, x: Any) -> Any:
        for layer in self:
            x = layer(x)
        return x
