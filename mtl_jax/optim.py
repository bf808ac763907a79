"""Learning-rate schedules and optimisers with torch's semantics."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

Schedule = Callable[[jax.Array], jax.Array]


def poly(lr: float, epochs: int, power: float = 0.9) -> Callable[[jax.Array], jax.Array]:
    """epoch -> lr * (1 - epoch / epochs) ** power, with the epoch counted from 0 and constant inside it."""
    return lambda epoch: lr * (1 - epoch / epochs) ** power


def constant(lr: float, epochs: int) -> Callable[[jax.Array], jax.Array]:
    """epoch -> lr."""
    return lambda epoch: jnp.full((), lr)


SCHEDULES = {"poly": poly, "constant": constant}


def per_step(schedule: Schedule, steps_per_epoch: int, epochs: int) -> Schedule:
    """A schedule over epochs as one over optimiser steps; beyond the last epoch it stays as it was there."""
    return lambda step: schedule(jnp.minimum(step // steps_per_epoch, epochs - 1))


def make_optimizer(
    name: str, learning_rate: float | Schedule, *, weight_decay: float = 0.0, momentum: float = 0.9
) -> optax.GradientTransformation:
    """Adam (eps 1e-8, betas 0.9 and 0.999) or SGD (no dampening, no Nesterov) as torch runs them.

    The decay is *coupled*: weight_decay * parameter is added to the gradient before the moments, for every parameter,
    batch norm and biases included. This is not AdamW.

    Args:
        name: "adam" or "sgd".
        learning_rate: a number, or a function of the optimiser step.

    Raises:
        ValueError: another name.
    """
    makers = {"adam": lambda: optax.adam(learning_rate), "sgd": lambda: optax.sgd(learning_rate, momentum=momentum)}
    if name not in makers:
        raise ValueError(f"unknown optimiser {name!r}; the optimisers are {', '.join(makers)}")
    return optax.chain(optax.add_decayed_weights(weight_decay), makers[name]())
