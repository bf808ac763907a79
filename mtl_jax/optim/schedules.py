"""Schedules of the learning rate."""

from collections.abc import Callable, Collection

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.registry import Registry

Schedule = Callable[[jax.Array], jax.Array]
# (lr, epochs, decay_epochs=..., decay_rate=...) -> epoch -> learning rate
ScheduleMaker = Callable[..., Schedule]

SCHEDULES: Registry[ScheduleMaker] = Registry("schedule", "schedules", "mtl_jax.optim.register_schedule")


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
