"""What training changes: the model's variables and the optimiser's."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from flax import nnx
from jax.sharding import Mesh

from mtl_jax.runtime import sharding
from mtl_jax.train.task_balancing import Balancing


class TrainState(NamedTuple):
    """Static structure and plain arrays of (model, optimiser), and of the memory of a method that balances tasks.

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
    build: Callable[[], nnx.Module],
    tx: optax.GradientTransformation,
    mesh: Mesh,
    *,
    split: bool = False,
    balancing: Balancing | None = None,
) -> TrainState:
    """A fresh state on all devices.

    Args:
        build: returns the model with its initial, perhaps pretrained, weights.
        split: large arrays are split over the devices, see `sharding.state_sharding`.
        balancing: the method that balances tasks.
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
    """The structure, shapes and shardings of `create`'s result, without computing it."""
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
