"""What training changes: the model's variables and the optimiser's."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from flax import nnx
from jax.sharding import Mesh

from mtl_jax import parallel


class TrainState(NamedTuple):
    """Static structure and plain arrays of (model, optimiser).

    Attributes:
        graphdef: closed over by the jitted steps.
        arrays: a pytree of arrays alone, which is what steps take and return and what checkpoints hold.
    """

    graphdef: nnx.GraphDef
    arrays: Any

    def model(self) -> nnx.Module:
        """A model that shares these arrays."""
        return nnx.merge(self.graphdef, self.arrays)[0]


def create(
    build: Callable[[], nnx.Module], tx: optax.GradientTransformation, mesh: Mesh, *, split: bool = False
) -> TrainState:
    """A fresh state on all devices.

    Args:
        build: returns the model with its initial, perhaps pretrained, weights.
        split: large arrays are split over the devices, see `parallel.state_sharding`.
    """
    pair = _pair(build, tx)
    arrays = nnx.as_pure(nnx.state(pair))
    return TrainState(nnx.graphdef(pair), parallel.place(arrays, _shardings(arrays, mesh, split)))


def abstract(
    build: Callable[[], nnx.Module], tx: optax.GradientTransformation, mesh: Mesh, *, split: bool = False
) -> TrainState:
    """The structure, shapes and shardings of `create`'s result, without computing it."""
    pair = nnx.eval_shape(lambda: _pair(build, tx))
    arrays = nnx.as_pure(nnx.state(pair))
    arrays = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        arrays,
        _shardings(arrays, mesh, split),
    )
    return TrainState(nnx.graphdef(pair), arrays)


def _shardings(arrays: Any, mesh: Mesh, split: bool) -> Any:
    return jax.tree.map(lambda leaf: parallel.state_sharding(leaf.shape, mesh, split=split), arrays)


def _pair(build: Callable[[], nnx.Module], tx: optax.GradientTransformation) -> tuple[nnx.Module, nnx.Optimizer]:
    model = build()
    return model, nnx.Optimizer(model, tx, wrt=nnx.Param)
