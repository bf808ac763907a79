"""The training state that a run begins or continues with."""

import logging
from functools import partial
from typing import Any

from flax import nnx
from jax.sharding import Mesh

from mtl_jax import weights
from mtl_jax.experiment import Experiment
from mtl_jax.runtime import messages, processes
from mtl_jax.train import ema, initial_weights, task_balancing
from mtl_jax.train import state as train_state
from mtl_jax.train.checkpoint import Checkpoints
from mtl_jax.train.state import AVERAGE, TrainState

logger = logging.getLogger(__name__)


def create_or_restore(
    run: Experiment, checkpoints: Checkpoints, mesh: Mesh, steps_per_epoch: int
) -> tuple[TrainState, dict[str, Any]]:
    """Returns (state, progress) of the newest checkpoint, or of a fresh start where there is no checkpoint.

    An average of the weights that the checkpoint lacks begins with the weights of the checkpoint, and one that the
    configuration does not ask for is passed over. The log says so.

    Args:
        run: The experiment.
        checkpoints: The checkpoints of the run.
        mesh: Devices that hold the state.
        steps_per_epoch: Number of steps of an epoch.

    Raises:
        DamagedError, ValueError: See `Checkpoints.restore_newest` and `initial_weights.build_model`.
    """
    config, tx = run.config, run.optimizer(steps_per_epoch)
    split, balancing, averaging = config.train.split_state, task_balancing.from_config(config), ema.from_config(config)
    if not checkpoints.steps():
        with messages.warnings_only(weights.__name__):  # the check has told how the files are read
            build = partial(initial_weights.build_model, config)
            state = train_state.create(build, tx, mesh, split=split, balancing=balancing, ema=averaging)
        return state, dict(initial_weights.PROGRESS)
    build = partial(initial_weights.build_untrained, config)
    abstract = partial(train_state.abstract, build, tx, mesh, split=split, balancing=balancing)
    wanted = abstract(ema=averaging)
    step, arrays, progress = checkpoints.restore_newest(wanted.arrays, optional=(AVERAGE,))
    restored = TrainState(wanted.graphdef, nnx.State(arrays))
    if averaging is None:
        if AVERAGE in checkpoints.parts(step):
            _tell("the average of the weights in checkpoint %d is passed over, because train.ema is 0", step)
    elif AVERAGE not in arrays:
        _tell("checkpoint %d has no average of the weights; the average begins with its weights", step)
        return TrainState(abstract().graphdef, restored.arrays).with_average(averaging, mesh, split=split), progress
    return restored, progress


def _tell(message: str, step: int) -> None:
    if processes.first():
        logger.warning(message, step)
