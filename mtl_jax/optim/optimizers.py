"""Optimisers with torch's semantics."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from mtl_jax.optim.schedules import Schedule
from mtl_jax.registry import Registry

# (learning rate or schedule over steps, momentum=...) -> updates that are linear in the learning rate
OptimizerMaker = Callable[..., optax.GradientTransformation]

OPTIMIZERS: Registry[OptimizerMaker] = Registry("optimiser", "optimisers", "mtl_jax.optim.register_optimizer")


def register_optimizer(name: str, make: OptimizerMaker) -> OptimizerMaker:
    """Adds an optimiser, and returns it.

    Args:
        name: Value of `optim.name` in a configuration.
        make: Function of the learning rate, a number or a function of the optimiser step, and by keyword `momentum`. It
            returns a transformation whose updates are linear in the learning rate.

    Raises:
        ValueError: There is another optimiser of this name.
    """
    return OPTIMIZERS.register(name, make)


register_optimizer("adam", lambda learning_rate, *, momentum: optax.adam(learning_rate))
register_optimizer("sgd", lambda learning_rate, *, momentum: optax.sgd(learning_rate, momentum=momentum))


def make_optimizer(
    name: str,
    learning_rate: float | Schedule,
    *,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    multipliers: Mapping[str, float] | None = None,
) -> optax.GradientTransformation:
    """Returns an optimiser that computes what torch's optimiser of this name computes.

    "adam" has eps 1e-8 and betas 0.9 and 0.999; "sgd" has neither dampening nor Nesterov momentum. The weight decay is
    *coupled*: weight_decay * parameter is added to the gradient before the moments, for every parameter, batch norm and
    biases included. This is not AdamW.

    Args:
        name: Key of `OPTIMIZERS`: "adam" or "sgd".
        learning_rate: Number, or function of the optimiser step.
        weight_decay: Coupled L2 coefficient.
        momentum: Momentum of "sgd".
        multipliers: {name of a submodule of the model: factor on the learning rate of its parameters}.

    Raises:
        ValueError: The name is unknown; the message lists the optimisers.
    """
    optimizer = OPTIMIZERS[name](learning_rate, momentum=momentum)
    return optax.chain(optax.add_decayed_weights(weight_decay), optimizer, _scale(multipliers or {}))


def _scale(multipliers: Mapping[str, float]) -> optax.GradientTransformation:
    """Multiplies the updates of some submodules; every optimiser is linear in the learning rate at this point."""

    def scale(path: tuple, update: jax.Array) -> jax.Array:
        return update * multipliers.get(path[0].key, 1.0) if path else update

    def update(updates: Any, params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(scale, updates) if multipliers else updates

    return optax.stateless(update)
