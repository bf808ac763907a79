"""The training state: the variables of the model, of the optimiser, of a method that balances tasks, and averages."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from mtl_jax.config import EMA
from mtl_jax.models import MultiTaskModel
from mtl_jax.runtime import sharding
from mtl_jax.train.ema import Average, Ema
from mtl_jax.train.task_balancing import Balancing

MODEL, OPTIMIZER, MEMORY, AVERAGE = range(4)  # the parts of a training state, the keys of its arrays


class TrainState(NamedTuple):
    """Static structure and arrays of the parts of training.

    The parts are the model, the optimiser, the memory of a method that balances tasks, and the average of the weights.
    A part that a run does not need has no arrays.

    Attributes:
        graphdef: Static structure, over which the jitted steps close.
        arrays: Pytree of arrays only. Steps take and return it, and checkpoints hold it.
    """

    graphdef: nnx.GraphDef
    arrays: Any

    def model(self) -> MultiTaskModel:
        """Returns a model that shares these arrays."""
        model: MultiTaskModel = nnx.merge(self.graphdef, self.arrays)[MODEL]
        return model

    def alone(self, weights: str) -> "TrainState":
        """Returns a state with the model alone, which shares the arrays.

        Args:
            weights: Weights of the model: "trained", or "ema" where the state has an average.
        """
        parts = nnx.merge(self.graphdef, self.arrays)
        alone = (parts[AVERAGE].model if weights == EMA else parts[MODEL],)
        return TrainState(nnx.graphdef(alone), nnx.as_pure(nnx.state(alone)))

    def with_average(self, ema: Ema, mesh: Mesh, *, split: bool = False) -> "TrainState":
        """Returns the state with an average that begins with the weights of the model. See `create` for the arguments.

        The arrays of this state are donated.
        """

        def parts(arrays: Any) -> tuple[Any, ...]:
            *others, _ = nnx.merge(self.graphdef, arrays)
            return (*others, Average(others[MODEL], ema))

        def extended(arrays: Any) -> Any:
            # The training step donates the model and the average, which therefore must not share buffers.
            return jax.tree.map(jnp.copy, nnx.as_pure(nnx.state(parts(arrays))))

        graphdef = nnx.graphdef(nnx.eval_shape(parts, self.arrays))
        shardings = _shardings(jax.eval_shape(extended, self.arrays), mesh, split)
        return TrainState(graphdef, jax.jit(extended, donate_argnums=0, out_shardings=shardings)(self.arrays))


def create(
    build: Callable[[], nnx.Module],
    tx: optax.GradientTransformation,
    mesh: Mesh,
    *,
    split: bool = False,
    balancing: Balancing | None = None,
    ema: Ema | None = None,
) -> TrainState:
    """Creates the initial state on all devices.

    Args:
        build: Function that returns the model with its initial or pretrained weights.
        tx: Optimiser.
        mesh: Devices that hold the state.
        split: True to split large arrays over the devices, see `sharding.state_sharding`.
        balancing: Method that balances tasks. None means no such method.
        ema: How weights are averaged. None means no average.
    """
    parts = _parts(build, tx, balancing, ema)
    arrays = nnx.as_pure(nnx.state(parts))
    return TrainState(nnx.graphdef(parts), sharding.place(arrays, _shardings(arrays, mesh, split)))


def abstract(
    build: Callable[[], nnx.Module],
    tx: optax.GradientTransformation,
    mesh: Mesh,
    *,
    split: bool = False,
    balancing: Balancing | None = None,
    ema: Ema | None = None,
) -> TrainState:
    """Returns the structure, shapes and shardings of the result of `create`, without computing the arrays."""
    parts = nnx.eval_shape(lambda: _parts(build, tx, balancing, ema))
    arrays = nnx.as_pure(nnx.state(parts))
    arrays = jax.tree.map(
        lambda leaf, placed: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placed),
        arrays,
        _shardings(arrays, mesh, split),
    )
    return TrainState(nnx.graphdef(parts), arrays)


def _shardings(arrays: Any, mesh: Mesh, split: bool) -> Any:
    return jax.tree.map(lambda leaf: sharding.state_sharding(leaf.shape, mesh, split=split), arrays)


def _parts(
    build: Callable[[], Any], tx: optax.GradientTransformation, balancing: Balancing | None, ema: Ema | None
) -> tuple[Any, ...]:
    model = build()
    return (
        model,
        nnx.Optimizer(model, tx, wrt=nnx.Param),
        None if balancing is None else balancing.remember(model),
        None if ema is None else Average(model, ema),
    )
