"""How the weights of a model came about, for the descriptions of exported models and for model cards."""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from mtl_jax import loggers, models
from mtl_jax.config import EMA, TRAINED
from mtl_jax.experiment import Experiment
from mtl_jax.models import MultiTaskModel
from mtl_jax.runtime import atomic_files

logger = logging.getLogger(__name__)

_CONVERTED = "converted_weights.json"  # file in a work directory whose training begins with converted weights


@dataclass(frozen=True)
class History:
    """How the weights of a model came about.

    Attributes:
        initial_weights: What the training began with, without places of this machine.
        step: Number of steps that have been trained; None = not known.
        steps: Number of steps of the whole training; None = not known.
        weights: "trained", or "ema" for the moving average of the weights.
    """

    initial_weights: str
    step: int | None
    steps: int | None
    weights: str = TRAINED

    def __post_init__(self) -> None:
        numbers = (self.step, self.steps)
        if self.weights not in (TRAINED, EMA):
            raise TypeError(f"weights is {self.weights!r}; expected {TRAINED!r} or {EMA!r}")
        if not isinstance(self.initial_weights, str) or not all(n is None or isinstance(n, int) for n in numbers):
            raise TypeError(f"expected a text and two whole numbers or null, not {self.initial_weights!r}, {numbers}")

    @property
    def progress(self) -> str:
        """The step, and of how many, for people."""
        if self.step is None:
            return "the number of steps is not known"
        if self.step == 0:
            return "step 0: the initial weights, without training"
        return f"step {self.step}" + (f" of {self.steps}" if self.steps is not None else "")


UNKNOWN = History("not known", None, None)


def note_conversion(workdir: Path) -> None:
    """Notes in a work directory that its training begins with converted weights, whatever its configuration says."""
    atomic_files.write_json(workdir / _CONVERTED, {"initial_weights": "converted"})


def of_run(run: Experiment, model: MultiTaskModel, workdir: Path, step: int, weights: str = TRAINED) -> History:
    """Returns the history of a model at a checkpoint of its run.

    Args:
        run: The run's experiment.
        model: The model.
        workdir: The work directory of the run, whose log says how many steps an epoch has.
        step: Number of the checkpoint's step.
        weights: Weights of the model: "trained" or "ema".
    """
    # A run saves no step 0: the checkpoint is that of a conversion.
    converted = step == 0 or (workdir / _CONVERTED).is_file()
    initial = "converted weights" if converted else _configured(run, model)
    return History(initial, step, _steps(run, workdir), weights)


def _configured(run: Experiment, model: MultiTaskModel) -> str:
    """Returns what a training by this configuration begins with."""
    options = models.options(run.config)
    if model.starts_from_single_task and options.init_single_task:
        return "trained single-task models"
    return Path(run.config.model.pretrained).name or "random"


def _steps(run: Experiment, workdir: Path) -> int | None:
    """Returns the number of steps of the whole training; None where the log does not say how many an epoch has."""
    if run.config.train.steps:
        return run.config.train.steps
    lines = [line for line in loggers.read(workdir / loggers.LOG) if line["kind"] == loggers.TRAINING]
    if not lines or not lines[-1].get("epoch"):
        return None
    return round(lines[-1]["step"] / lines[-1]["epoch"]) * run.config.train.epochs


def write(history: History, path: Path) -> None:
    """Writes a history as JSON."""
    atomic_files.write_json(path, asdict(history))


def read(path: Path) -> History:
    """Returns the history that `write` wrote, `UNKNOWN` where there is none or, with a warning, where it is damaged."""
    if not path.is_file():
        return UNKNOWN
    try:
        return History(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError, OSError) as error:
        logger.warning("%s cannot be read (%r); how the weights came about is not known", path, error)
        return UNKNOWN
