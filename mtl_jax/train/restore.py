"""The state of a run, read back from one of its checkpoints."""

import logging
from pathlib import Path

from mtl_jax import experiment
from mtl_jax.config import Config
from mtl_jax.runtime import sharding
from mtl_jax.train import state as train_state
from mtl_jax.train import task_balancing
from mtl_jax.train.checkpoint import Checkpoints

logger = logging.getLogger(__name__)


def load(config: Config, workdir: str | Path, step: str) -> tuple[int, train_state.TrainState]:
    """(the checkpoint's step, its model and optimiser on all devices); the arguments and errors are `Restored`'s."""
    checkpoints = Checkpoints(workdir, read_only=True)
    number = checkpoints.resolve(step)
    # The schedule's length changes neither the structure nor the shapes of the optimiser's state.
    tx = experiment.build_optimizer(config, steps_per_epoch=1)
    abstract = train_state.abstract(
        lambda: experiment.build_model(config), tx, sharding.make_mesh(), balancing=task_balancing.from_config(config)
    )
    arrays, _ = checkpoints.restore(number, abstract.arrays)
    checkpoints.close()
    logger.info("restored step %d (%s) of %s", number, step, workdir)
    return number, train_state.TrainState(abstract.graphdef, arrays)
