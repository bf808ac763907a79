"""The model of a run, read back from one of its checkpoints."""

import logging
from pathlib import Path
from typing import NamedTuple

import jax
from flax import nnx

from mtl_jax import config as configs
from mtl_jax import experiment, models
from mtl_jax.config import EMA, TRAINED, WEIGHTS, Config
from mtl_jax.experiment import Experiment
from mtl_jax.runtime import sharding
from mtl_jax.train.checkpoint import Checkpoints
from mtl_jax.train.ema import Average, Ema
from mtl_jax.train.state import AVERAGE, MODEL, TrainState

logger = logging.getLogger(__name__)


class Loaded(NamedTuple):
    """The model of a checkpoint.

    Attributes:
        step: Number of the checkpoint's step.
        weights: Weights of the model: "trained", or "ema" for their moving average.
        state: State with the model alone, whole on all devices.
    """

    step: int
    weights: str
    state: TrainState


def load(config: Config | Experiment, workdir: str | Path, step: str, weights: str = "") -> Loaded:
    """Returns the model of a run at one of its checkpoints.

    The states of optimiser and balancing method, twice the model's size with Adam, stay on the disk.

    Args:
        config: The run's own experiment or configuration, `experiment.load_config(workdir)`.
        workdir: The work directory of the run.
        step: Checkpoint: "best", "latest" or the number of a step.
        weights: Weights of the model: "trained", or "ema" for their moving average. Empty = those that evaluations in
            training score by the configuration; of a checkpoint that has no average, the trained ones.

    Raises:
        FileNotFoundError: The run has no checkpoints, or no such step.
        DamagedError: The checkpoint's files are not whole.
        ValueError: The checkpoint does not fit the configuration, or has no such weights.
    """
    run = experiment.make(config)
    if weights not in ("", *WEIGHTS):
        raise ValueError(f"weights is {weights!r}; it may be {' or '.join(map(repr, WEIGHTS))}")
    checkpoints = Checkpoints(workdir, read_only=True)
    number = checkpoints.resolve(step)
    chosen = weights or configs.eval_weights(run.config)
    if chosen == EMA and AVERAGE not in checkpoints.parts(number):
        lacking = f"checkpoint {number} of {workdir} has no averaged weights: it was trained with train.ema=0"
        if weights:
            raise ValueError(f"{lacking}; load its trained weights, or train with --train.ema=0.999 for example")
        logger.warning("%s; its trained weights are taken", lacking)
        chosen = TRAINED
    parts = nnx.eval_shape(lambda: _parts(models.build(run.config), chosen))
    whole = sharding.replicated(sharding.make_mesh())
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), nnx.as_pure(nnx.state(parts))
    )
    arrays, _ = checkpoints.restore(number, abstract)
    checkpoints.close()
    logger.info("restored step %d (%s), %s, of %s", number, step, WEIGHTS[chosen], workdir)
    return Loaded(number, chosen, TrainState(nnx.graphdef(parts), arrays).alone(chosen))


def _parts(model: models.MultiTaskModel, weights: str) -> tuple[nnx.Module | None, ...]:
    """Returns the parts of a training state that hold the weights alone."""
    parts: list[nnx.Module | None] = [None] * (AVERAGE + 1)
    if weights == EMA:
        parts[AVERAGE] = Average(model, Ema(decay=1))  # it stands still
    else:
        parts[MODEL] = model
    return tuple(parts)
