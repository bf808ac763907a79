"""Learning-rate schedules and optimisers with torch's semantics."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

Schedule = Callable[[jax.Array], jax.Array]


def poly(lr: float, epochs: int, power: float = 0.9) -> Schedule:
    """epoch -> lr * (1 - epoch / epochs) ** power, with the epoch counted from 0 and constant inside it."""
    return lambda epoch: lr * (1 - epoch / epochs) ** power


def step(lr: float, decay_epochs: Collection[int], rate: float = 0.1) -> Schedule:
    """epoch -> lr * rate ** (number of decay epochs strictly below the epoch), with the epoch counted from 0."""
    milestones = np.array(sorted(decay_epochs), np.float32)
    return lambda epoch: lr * rate ** (milestones < epoch).sum()


def constant(lr: float) -> Schedule:
    """epoch -> lr."""
    return lambda epoch: jnp.full((), lr)


def make_schedule(
    name: str, lr: float, epochs: int, *, decay_epochs: Collection[int] = (), decay_rate: float = 0.1
) -> Schedule:
    """A schedule over epochs by name: "poly", "step" or "constant".

    Raises:
        ValueError: another name.
    """
    makers = {
        "poly": lambda: poly(lr, epochs),
        "step": lambda: step(lr, decay_epochs, decay_rate),
        "constant": lambda: constant(lr),
    }
    if name not in makers:
        raise ValueError(f"unknown schedule {name!r}; the schedules are {', '.join(makers)}")
    return makers[name]()


def per_step(schedule: Schedule, steps_per_epoch: int, epochs: int) -> Schedule:
    """A schedule over epochs as one over optimiser steps; beyond the last epoch it stays as it was there."""
    return lambda step: schedule(jnp.minimum(step // steps_per_epoch, epochs - 1))


def make_optimizer(
    name: str,
    learning_rate: float | Schedule,
    *,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    multipliers: Mapping[str, float] | None = None,
) -> optax.GradientTransformation:
    """Adam (eps 1e-8, betas 0.9 and 0.999) or SGD (no dampening, no Nesterov) as torch runs them.

    The decay is *coupled*: weight_decay * parameter is added to the gradient before the moments, for every parameter,
    batch norm and biases included. This is not AdamW.

    Args:
        name: "adam" or "sgd".
        learning_rate: a number, or a function of the optimiser step.
        multipliers: {name of a submodule of the model: factor on the learning rate of its parameters}.

    Raises:
        ValueError: another name.
    """
    makers = {"adam": lambda: optax.adam(learning_rate), "sgd": lambda: optax.sgd(learning_rate, momentum=momentum)}
    if name not in makers:
        raise ValueError(f"unknown optimiser {name!r}; the optimisers are {', '.join(makers)}")
    return optax.chain(optax.add_decayed_weights(weight_decay), makers[name](), _scale(multipliers or {}))


def _scale(multipliers: Mapping[str, float]) -> optax.GradientTransformation:
    """Multiplies the updates of some submodules; both optimisers are linear in the learning rate at this point."""

    def scale(path: tuple, update: jax.Array) -> jax.Array:
        return update * multipliers.get(path[0].key, 1.0) if path else update

    def update(updates: Any, params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(scale, updates) if multipliers else updates

    return optax.stateless(update)
