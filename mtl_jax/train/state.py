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


def create(build: Callable[[], nnx.Module], tx: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """A fresh state on all devices. `build` returns the model with its initial, perhaps pretrained, weights."""
    pair = _pair(build, tx)
    return TrainState(nnx.graphdef(pair), parallel.replicate(nnx.as_pure(nnx.state(pair)), mesh))


def abstract(build: Callable[[], nnx.Module], tx: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """The structure, shapes and shardings of `create`'s result, without computing it."""
    pair = nnx.eval_shape(lambda: _pair(build, tx))
    sharding = parallel.replicated(mesh)
    arrays = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), nnx.as_pure(nnx.state(pair))
    )
    return TrainState(nnx.graphdef(pair), arrays)


def _pair(build: Callable[[], nnx.Module], tx: optax.GradientTransformation) -> tuple[nnx.Module, nnx.Optimizer]:
    model = build()
    return model, nnx.Optimizer(model, tx, wrt=nnx.Param)
