"""The model of a run, read back from one of its checkpoints."""

import logging
from pathlib import Path

import jax
from flax import nnx

from mtl_jax import experiment, models
from mtl_jax.config import Config
from mtl_jax.experiment import Experiment
from mtl_jax.runtime import sharding
from mtl_jax.train.checkpoint import Checkpoints
from mtl_jax.train.state import TrainState

logger = logging.getLogger(__name__)


def load(config: Config | Experiment, workdir: str | Path, step: str) -> tuple[int, TrainState]:
    """Returns (number of the checkpoint's step, state with the model alone, whole on all devices).

    The states of optimiser and balancing method, twice the model's size with Adam, stay on the disk.

    Args:
        config: The run's own experiment or configuration, `experiment.load_config(workdir)`.
        workdir: The work directory of the run.
        step: Checkpoint: "best", "latest" or the number of a step.

    Raises:
        FileNotFoundError: The run has no checkpoints, or no such step.
        DamagedError: The checkpoint's files are not whole.
        ValueError: The checkpoint does not fit the configuration.
    """
    run = experiment.make(config)
    checkpoints = Checkpoints(workdir, read_only=True)
    number = checkpoints.resolve(step)
    parts = nnx.eval_shape(lambda: (models.build(run.config),))
    whole = sharding.replicated(sharding.make_mesh())
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), nnx.as_pure(nnx.state(parts))
    )
    arrays, _ = checkpoints.restore(number, abstract)
    checkpoints.close()
    logger.info("restored step %d (%s) of %s", number, step, workdir)
    return number, TrainState(nnx.graphdef(parts), arrays)
