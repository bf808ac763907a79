"""The message of a run at its start: everything that decides what is trained, how, and where it goes."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from mtl_jax import config as configs
from mtl_jax import folders, models
from mtl_jax.config import PLAIN_BALANCING, Config
from mtl_jax.data import label_fraction
from mtl_jax.experiment import Experiment, configured_optim
from mtl_jax.loggers import LOG
from mtl_jax.models import MultiTaskModel
from mtl_jax.runtime import devices, messages, processes
from mtl_jax.runtime.messages import counted
from mtl_jax.train.cadence import Cadence

logger = logging.getLogger(__name__)

_PACKAGES = ("mtl_jax", "jax", "jaxlib", "flax", "optax")  # they decide how training computes


@dataclass(frozen=True)
class Start:
    """Facts about a run when its training begins.

    Attributes:
        experiment: The experiment.
        workdir: The work directory.
        model: The model, which may be abstract.
        images: {split: number of images}.
        labelled: {split: {task: number of images with a label of it}}.
        devices: Number of devices that share a batch.
        step: Step that the run continues from, 0 at first.
        cadence: Length of the run and its evaluations.
        restored: The weights are those of a checkpoint. It may be of step 0, which holds converted weights.
    """

    experiment: Experiment
    workdir: Path
    model: MultiTaskModel
    images: Mapping[str, int]
    labelled: Mapping[str, Mapping[str, int]]
    devices: int
    step: int
    cadence: Cadence
    restored: bool


def say(start: Start, logs: Mapping[str, str]) -> None:
    """Says in the log of the first process what is trained, how, on what, and where it goes; see `text`."""
    if not processes.first():
        return
    logger.info("%s", text(start, logs))
    if (advice := devices.advice_on_cpu()) is not None:
        logger.warning("%s", advice)


def text(start: Start, logs: Mapping[str, str]) -> str:
    """Returns the lines about the start of a run, in two columns below a title.

    Args:
        start: Facts about the run.
        logs: {name of a logger: where a person finds what was logged}.
    """
    rows = {
        **facts(start),
        "files": f"{start.workdir}: {folders.CHECKPOINTS}/, {LOG}",
        **{f"log {name}": place for name, place in logs.items()},
    }
    width = max(map(len, rows))
    return "\n".join(["training", *(f"{name:<{width}}  {value}" for name, value in rows.items())])


def facts(start: Start) -> dict[str, str]:
    """Returns {title: text} of everything that decides what is trained and how."""
    run = start.experiment
    return {
        "software": ", ".join(f"{name} {version}" for name, version in versions().items()),
        "devices": devices.describe(),
        "model": _model(start),
        "weights": _weights(start),
        "data": f"{run.builder_name} in {run.data_dir}",
        "images": f"{_splits(start.images)}; {_placed(run)} {messages.size_text(run.image_size)} (height x width)",
        **_labels(run),
        **{f"task {task}": _task(start, task) for task in run.all_tasks},
        "tasks": _balancing(start),
        "optimiser": f"{run.config.optim.name}, learning rate {run.config.optim.lr:g} ({_schedule(start)})",
        "batch": _batch(start),
        **({"average": _average(run.config)} if run.config.train.ema else {}),
        "steps": _steps(start),
        "evaluation": f"after {start.cadence.evaluated}, by the protocol {run.protocol.name}",
        **_ranking(run),
    }


def _placed(run: Experiment) -> str:
    return {"stretch": "resized to", "pad": "cropped or padded to"}[run.recipe.placement]


def versions() -> dict[str, str]:
    """Returns {package: its version} of the packages that decide how training computes."""
    return {name: metadata.version(name) for name in _PACKAGES}


def _model(start: Start) -> str:
    model, freeze = start.experiment.config.model, start.experiment.config.optim.freeze
    frozen = f"; {', '.join(freeze)} {'do' if len(freeze) > 1 else 'does'} not learn" if freeze else ""
    total = models.count_parameters(start.model)
    shared = sum(map(models.count_parameters, start.model.backbones()))
    return (
        f"{model.name} on {model.backbone}, {total / 1e6:.2f} million parameters, {shared / 1e6:.2f} of them in the "
        f"backbone; computes in {model.dtype}{frozen}"
    )


def _weights(start: Start) -> str:
    config = start.experiment.config
    if start.restored:
        return f"those of the checkpoint of step {start.step}"
    options = models.options(config)
    if start.model.starts_from_single_task and options.init_single_task:
        return f"those of the single-task models in {options.single_task}"
    return f"backbone from {config.model.pretrained}, else random" if config.model.pretrained else "random"


def _splits(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{split} {count}" for split, count in counts.items())


def _labels(run: Experiment) -> dict[str, str]:
    """Returns the row about the labels that training uses, where it does not use all of them."""
    data = run.config.data
    if label_fraction.keeps_all(data.label_fraction, data.label_images):
        return {}
    fractions = ", ".join(f"{task} {label_fraction.fraction_of(data.label_fraction, task):g}" for task in run.all_tasks)
    return {"labels": f"fractions of the training labels: {fractions} ({data.label_images}, seed {data.label_seed})"}


def _task(start: Start, task: str) -> str:
    run = start.experiment
    weighted = run.config.balancing == PLAIN_BALANCING
    weight = f" x {run.objective.weights[task]:g}" if weighted else ""
    role = "" if task in run.main_tasks else " (auxiliary)"
    counts = {split: labelled[task] for split, labelled in start.labelled.items()}
    return f"loss {run.objective.losses[task]}{weight}{role}; labels: {_splits(counts)}"


def _balancing(start: Start) -> str:
    balancing = start.experiment.config.balancing
    return "sum of the weighted losses" if balancing == PLAIN_BALANCING else f"balanced by {balancing}"


def _batch(start: Start) -> str:
    train = start.experiment.config.train
    parts = [f"{train.batch_size} images"]
    if start.devices > 1:
        parts.append(f"{train.batch_size // start.devices} on each of {start.devices} devices")
    if train.accumulate > 1:
        parts.append(f"batch norm takes each micro-batch of {train.batch_size // train.accumulate} images for a batch")
    return ", ".join(parts)


def _average(config: Config) -> str:
    decay = f"decay {config.train.ema:g}" + (" after a warm-up" if config.train.ema_warmup else "")
    scored = "averaged weights" if configs.eval_weights(config) == configs.EMA else "weights of the newest step"
    return f"EMA of parameters and batch-norm statistics, {decay}; evaluation scores the {scored}"


def _schedule(start: Start) -> str:
    run = start.experiment
    by = " by steps" if run.config.optim.schedule_by == "step" else ""
    warmup = configured_optim.warmup_steps(run.config, start.cadence.steps_per_epoch)
    return run.config.optim.schedule + by + (f" after {counted(warmup, 'step')} of warm-up" if warmup else "")


def _steps(start: Start) -> str:
    least = "at most " if start.experiment.config.train.patience else ""
    left = f"; {least}{start.cadence.total_steps - start.step} are left" if start.step else ""
    return start.cadence.length + left


def _ranking(run: Experiment) -> dict[str, str]:
    """Returns the row about the best checkpoints; none where all is as the published experiments have it."""
    train = run.config.train
    parts = [f"ranked by {train.best}"] if train.best else []
    if train.keep > 1:
        parts.append(f"the {train.keep} best ones are kept")
    if train.patience:
        parts.append(f"training ends after {counted(train.patience, 'evaluation')} without a better one")
    return {"checkpoints": "; ".join(parts)} if parts else {}
