"""The training step that a configuration describes."""

from collections.abc import Callable
from typing import Any

import jax

from mtl_jax.config import Config
from mtl_jax.losses import Objective
from mtl_jax.runtime import compilation
from mtl_jax.train.state import TrainState
from mtl_jax.train.step import Scalars, make_train_step
from mtl_jax.train.task_balancing import Balancing


def train_step(
    config: Config, state: TrainState, objective: Objective, balancing: Balancing | None
) -> Callable[..., tuple[Any, Scalars]]:
    """Returns the training step of `make_train_step`, which says in the log when it compiles.

    Args:
        config: The configuration.
        state: The state that the step begins with.
        objective: Function that training minimises.
        balancing: Method that balances tasks, from `task_balancing.from_config`.
    """
    train = config.train
    step = make_train_step(
        state.graphdef,
        objective,
        accumulate=train.accumulate,
        batch_norm_groups=train.batch_norm_groups,
        shardings=jax.tree.map(lambda x: x.sharding, state.arrays) if train.split_state else None,
        balancing=balancing,
    )
    return compilation.announced(step, "the training step")
