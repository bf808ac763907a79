"""Learning-rate schedules and optimisers with torch's semantics."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtl_jax.registry import Registry

Schedule = Callable[[jax.Array], jax.Array]
# (lr, epochs, decay_epochs=..., decay_rate=...) -> epoch -> learning rate
ScheduleMaker = Callable[..., Schedule]
# (learning rate or schedule over steps, momentum=...) -> updates that are linear in the learning rate
OptimizerMaker = Callable[..., optax.GradientTransformation]

SCHEDULES: Registry[ScheduleMaker] = Registry("schedule", "schedules", "mtl_jax.optim.register_schedule")
OPTIMIZERS: Registry[OptimizerMaker] = Registry("optimiser", "optimisers", "mtl_jax.optim.register_optimizer")


def register_schedule(name: str, make: ScheduleMaker) -> ScheduleMaker:
    """Adds a schedule, and returns it.

    Args:
        name: Value of `optim.schedule` in a configuration.
        make: Function of the learning rate `lr`, the number of `epochs`, and by keyword `decay_epochs` and
            `decay_rate`. It returns a function from the epoch, counted from 0, to the learning rate.

    Raises:
        ValueError: There is another schedule of this name.
    """
    return SCHEDULES.register(name, make)


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


def poly(lr: float, epochs: int, power: float = 0.9) -> Schedule:
    """Returns the schedule epoch -> lr * (1 - epoch / epochs) ** power.

    The epoch is counted from 0, and the rate is constant within an epoch.
    """
    return lambda epoch: lr * (1 - epoch / epochs) ** power


def step(lr: float, decay_epochs: Collection[int], rate: float = 0.1) -> Schedule:
    """Returns the schedule epoch -> lr * rate ** (number of decay epochs strictly below the epoch).

    The epoch is counted from 0.
    """
    milestones = np.array(sorted(decay_epochs), np.float32)
    return lambda epoch: lr * rate ** (milestones < epoch).sum()


def constant(lr: float) -> Schedule:
    """Returns the schedule epoch -> lr."""
    return lambda epoch: jnp.full((), lr)


register_schedule("poly", lambda lr, epochs, **_: poly(lr, epochs))
register_schedule("step", lambda lr, epochs, *, decay_epochs, decay_rate: step(lr, decay_epochs, decay_rate))
register_schedule("constant", lambda lr, epochs, **_: constant(lr))
register_optimizer("adam", lambda learning_rate, *, momentum: optax.adam(learning_rate))
register_optimizer("sgd", lambda learning_rate, *, momentum: optax.sgd(learning_rate, momentum=momentum))


def make_schedule(
    name: str, lr: float, epochs: int, *, decay_epochs: Collection[int] = (), decay_rate: float = 0.1
) -> Schedule:
    """Returns a schedule over epochs by its name.

    Args:
        name: Key of `SCHEDULES`: "poly", "step" or "constant".
        lr: Learning rate of epoch 0.
        epochs: Number of epochs.
        decay_epochs: Epochs of "step".
        decay_rate: Factor of "step".

    Raises:
        ValueError: The name is unknown; the message lists the schedules.
    """
    return SCHEDULES[name](lr, epochs, decay_epochs=decay_epochs, decay_rate=decay_rate)


def per_step(schedule: Schedule, steps_per_epoch: int, epochs: int) -> Schedule:
    """Returns a schedule over epochs as a schedule over optimiser steps.

    Beyond the last epoch the learning rate stays that of the last epoch.
    """
    return lambda step: schedule(jnp.minimum(step // steps_per_epoch, epochs - 1))


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
