"""Schedules of the learning rate.

A schedule is a function of a position, counted from 0. Positions are epochs or steps. `over_steps` makes a schedule
over either of them one over the steps of the optimiser, and `with_warmup` lets the rate rise to it.
"""

from collections.abc import Callable, Collection

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.registry import Registry

Schedule = Callable[[jax.Array], jax.Array]
# (lr, length, decays=..., decay_rate=..., power=...) -> position -> learning rate
ScheduleMaker = Callable[..., Schedule]

SCHEDULES: Registry[ScheduleMaker] = Registry("schedule", "schedules", "mtl_jax.optim.register_schedule")


def register_schedule(name: str, make: ScheduleMaker) -> ScheduleMaker:
    """Adds a schedule, and returns it.

    Args:
        name: Value of `optim.schedule` in a configuration.
        make: Function of the learning rate `lr`, the `length` in positions (epochs or steps), and by keyword `decays`,
            `decay_rate` and `power`, see `make_schedule`. It returns a function from the position, counted from 0, to
            the learning rate, which is proportional to `lr`. `**_` takes the keywords that a schedule does not need.

    Raises:
        ValueError: There is another schedule of this name.
    """
    return SCHEDULES.register(name, make)


def poly(lr: float, length: int, power: float = 0.9) -> Schedule:
    """Returns the schedule position -> lr * (1 - position / length) ** power.

    Args:
        lr: Learning rate of position 0.
        length: Number of positions; the rate would be 0 at position `length`.
        power: Exponent; 1 lets the rate fall linearly.
    """
    return lambda position: lr * (1 - position / length) ** power


def cosine(lr: float, length: int) -> Schedule:
    """Returns the schedule position -> lr * (1 + cos(pi * position / length)) / 2 (arXiv 1608.03983, one cycle).

    Args:
        lr: Learning rate of position 0.
        length: Number of positions; the rate would be 0 at position `length`.
    """
    return lambda position: lr * (1 + jnp.cos(jnp.pi * position / length)) / 2


def step(lr: float, decays: Collection[int], rate: float = 0.1) -> Schedule:
    """Returns the schedule position -> lr * rate ** (number of decays strictly below the position).

    Args:
        lr: Learning rate of position 0.
        decays: Positions, each of which is the last one before a decay.
        rate: Factor of a decay.
    """
    milestones = np.array(sorted(decays), np.float32)
    return lambda position: lr * rate ** (milestones < position).sum()


def constant(lr: float) -> Schedule:
    """Returns the schedule position -> lr."""
    return lambda position: jnp.full((), lr)


register_schedule("poly", lambda lr, length, *, power, **_: poly(lr, length, power))
register_schedule("cosine", lambda lr, length, **_: cosine(lr, length))
register_schedule("step", lambda lr, length, *, decays, decay_rate, **_: step(lr, decays, decay_rate))
register_schedule("constant", lambda lr, length, **_: constant(lr))


def make_schedule(
    name: str,
    lr: float,
    length: int,
    *,
    min_lr: float = 0.0,
    power: float = 0.9,
    decays: Collection[int] = (),
    decay_rate: float = 0.1,
) -> Schedule:
    """Returns a schedule by its name.

    Args:
        name: Key of `SCHEDULES`: "poly", "cosine", "step" or "constant".
        lr: Learning rate of position 0.
        length: Number of positions.
        min_lr: Learning rate that the schedule falls towards in place of 0: min_lr + (lr - min_lr) * shape, where
            `shape` is the schedule with the learning rate 1.
        power: Exponent of "poly".
        decays: Positions of "step": the rate is smaller after each of them.
        decay_rate: Factor of "step".

    Raises:
        ValueError: The name is unknown; the message lists the schedules.
    """
    schedule = SCHEDULES[name](lr - min_lr, length, power=power, decays=decays, decay_rate=decay_rate)
    return (lambda position: min_lr + schedule(position)) if min_lr else schedule


def over_steps(schedule: Schedule, unit: int, length: int, begin: int = 0) -> Schedule:
    """Returns a schedule over positions as a schedule over optimiser steps.

    Outside of the schedule's positions the learning rate is that of the nearest one.

    Args:
        schedule: The schedule.
        unit: Number of steps of a position: that of an epoch, or 1. The rate is constant within a position.
        length: Number of positions of the schedule.
        begin: Number of positions before the first one of the schedule.
    """
    return lambda step: schedule(jnp.clip(step // unit - begin, 0, length - 1))


def with_warmup(schedule: Schedule, steps: int, start: float) -> Schedule:
    """Returns a schedule over steps whose rate rises linearly at first, as torch's LinearLR does.

    At step s < steps the rate is (start + (1 - start) * s / steps) times that of the schedule. The warm-up is meant for
    a schedule that begins after it: its rate is constant until then.

    Args:
        schedule: Schedule over steps.
        steps: Number of steps of the warm-up; 0 = none.
        start: Factor on the rate of the first step.
    """
    if not steps:
        return schedule
    return lambda step: schedule(step) * jnp.minimum(start + (1 - start) * step / steps, 1)
