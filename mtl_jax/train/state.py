"""The training state: the variables of the model, of the optimiser and of a method that balances tasks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from flax import nnx
from jax.sharding import Mesh

from mtl_jax.models import MultiTaskModel
from mtl_jax.runtime import sharding
from mtl_jax.train.task_balancing import Balancing


class TrainState(NamedTuple):
    """Static structure and arrays of the model, of the optimiser and of the state of a method that balances tasks.

    Attributes:
        graphdef: Static structure, over which the jitted steps close.
        arrays: Pytree of arrays only. Steps take and return it, and checkpoints hold it.
    """

    graphdef: nnx.GraphDef
    arrays: Any

    def model(self) -> MultiTaskModel:
        """Returns a model that shares these arrays."""
        model: MultiTaskModel = nnx.merge(self.graphdef, self.arrays)[0]
        return model


def create(
    build: Callable[[], nnx.Module],
    tx: optax.GradientTransformation,
    mesh: Mesh,
    *,
    split: bool = False,
    balancing: Balancing | None = None,
) -> TrainState:
    """Creates the initial state on all devices.

    Args:
        build: Function that returns the model with its initial or pretrained weights.
        tx: Optimiser.
        mesh: Devices that hold the state.
        split: True to split large arrays over the devices, see `sharding.state_sharding`.
        balancing: Method that balances tasks. None means no such method.
    """
    parts = _parts(build, tx, balancing)
    arrays = nnx.as_pure(nnx.state(parts))
    return TrainState(nnx.graphdef(parts), sharding.place(arrays, _shardings(arrays, mesh, split)))


def abstract(
    build: Callable[[], nnx.Module],
    tx: optax.GradientTransformation,
    mesh: Mesh,
    *,
    split: bool = False,
    balancing: Balancing | None = None,
) -> TrainState:
    """Returns the structure, shapes and shardings of the result of `create`, without computing the arrays."""
    parts = nnx.eval_shape(lambda: _parts(build, tx, balancing))
    arrays = nnx.as_pure(nnx.state(parts))
    arrays = jax.tree.map(
        lambda leaf, placed: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placed),
        arrays,
        _shardings(arrays, mesh, split),
    )
    return TrainState(nnx.graphdef(parts), arrays)


def _shardings(arrays: Any, mesh: Mesh, split: bool) -> Any:
    return jax.tree.map(lambda leaf: sharding.state_sharding(leaf.shape, mesh, split=split), arrays)


def _parts(build: Callable[[], Any], tx: optax.GradientTransformation, balancing: Balancing | None) -> tuple[Any, ...]:
    model = build()
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    return (model, optimizer) if balancing is None else (model, optimizer, balancing.remember(model))
