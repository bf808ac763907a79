"""Initial weights of a model: random, from pretrained backbones, or from trained single-task models."""

import contextlib
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
from flax import nnx

from mtl_jax import backbones, experiment, folders, models, weights
from mtl_jax.config import Config, Data, main_tasks
from mtl_jax.experiment import Experiment
from mtl_jax.heads.deeplab import ASPP
from mtl_jax.models.base import MultiTaskModel
from mtl_jax.runtime import sharding
from mtl_jax.train import checkpoint, ema, history, restore, task_balancing
from mtl_jax.train import state as train_state

Arrays = dict[str, np.ndarray]
PROGRESS = {"step": 0, "input": None, "reference": None}  # the progress of a run that has not begun
_PLACE = "{task}"


def check(config: Config | Experiment) -> None:
    """Checks that `build_model` will succeed, and that the optimiser names parts that the model has.

    It reads every weights file, downloads those that are missing, and compares them with the model. Of a single-task
    model's work directory it reads the best checkpoint, or the latest if none has been evaluated.

    Args:
        config: A training run, or its configuration.

    Raises:
        FileNotFoundError: Weights are missing; the message says how to get them.
        OSError: A download failed.
        ValueError: The model is impossible, or the weights, the balancing method or the optimiser do not fit it.
    """
    run = experiment.make(config)
    config = run.config
    model = nnx.eval_shape(lambda: build_untrained(config))
    if (balancing := task_balancing.from_config(config)) is not None:
        balancing.check(model)
    _ = run.parameter_groups  # raises where the model lacks a part
    train = config.train
    one_image = train.batch_size == train.accumulate * train.batch_norm_groups
    if one_image and any(isinstance(node, ASPP) for _, node in nnx.iter_graph(model)):
        raise ValueError(ASPP.ONE_IMAGE)
    _fill(model, config, weights.check_torch)


def build_untrained(config: Config) -> MultiTaskModel:
    """Builds the model of a configuration with random weights, and freezes the parts that do not learn.

    Raises:
        ValueError: The model is impossible, or does not have one of the parts.
    """
    return models.freeze(models.build(config), config.optim.freeze)


def build_model(config: Config) -> MultiTaskModel:
    """Builds the model of a configuration with the initial weights that it asks for.

    With the option `init_single_task`, a model that consists of single-task models starts from trained ones. Otherwise
    `model.pretrained` fills every backbone. All other weights keep their random or prescribed values.

    Args:
        config: Configuration of a training run.

    Raises:
        FileNotFoundError, OSError, ValueError: See `check`.
    """
    model = models.build(config)
    _fill(model, config, weights.load_torch)
    return models.freeze(model, config.optim.freeze)


def create_workdir(config: Config, workdir: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a work directory at step 0, which can be evaluated and trained.

    Args:
        config: Configuration of the run.
        workdir: The directory, which must not exist.
        arrays: {torch key: array} for every parameter and statistic of the model. A prefix before the keys is removed
            (`mtl_jax.weights.fit_names`).

    Raises:
        FileExistsError: The work directory exists already.
        ValueError: The model is impossible, or the arrays do not fit it. Nothing has been written then.
    """
    if Path(workdir).exists():
        raise FileExistsError(f"{workdir} exists already; give the path of a new work directory")

    run = experiment.make(config)
    names = weights.torch_keys(nnx.eval_shape(lambda: models.build(run.config)))
    fitting = weights.fit_names(arrays, names, "the weights of the new work directory")

    def build() -> MultiTaskModel:
        model = models.build(run.config)
        weights.load_torch(model, fitting)
        return models.freeze(model, run.config.optim.freeze)

    tx, balancing = run.optimizer(steps_per_epoch=1), task_balancing.from_config(run.config)
    state = train_state.create(build, tx, sharding.make_mesh(), balancing=balancing, ema=ema.from_config(run.config))
    with contextlib.ExitStack() as exits:
        Path(workdir).mkdir(parents=True)
        # Otherwise the same command would be refused after an error, because the work directory exists.
        exits.callback(shutil.rmtree, workdir, ignore_errors=True)
        experiment.store_config(run.config, workdir)
        history.note_conversion(Path(workdir))
        checkpoints = exits.enter_context(contextlib.closing(checkpoint.Checkpoints(workdir)))
        checkpoints.save(0, state.arrays, PROGRESS)
        checkpoints.close()
        exits.pop_all()


def _fill(model: MultiTaskModel, config: Config, fill: Callable[[nnx.Module, Arrays], None]) -> None:
    """Calls `fill(part of the model, its weights)` for every part that starts from given weights."""
    for part, arrays, source in _parts(model, config):
        try:
            fill(part, arrays)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error


def _parts(model: MultiTaskModel, config: Config) -> Iterator[tuple[nnx.Module, Arrays, str]]:
    """Yields (part of the model, {torch key: array}, name of their source)."""
    options = models.options(config)
    if model.starts_from_single_task and options.init_single_task:
        for task, path in _single_task_paths(config, options.single_task).items():
            parts = {"backbone": model.backbone[task], "decoder": model.heads[task]}
            names = [f"{name}.{key}" for name, part in parts.items() for key in weights.torch_keys(part)]
            arrays = _single_task_arrays(config, task, path, names)
            for name, part in parts.items():
                yield part, _below(arrays, f"{name}."), f"{path}, {name}"
    elif config.model.pretrained:
        first = model.backbones()[0]
        arrays = weights.read_pretrained(
            backbones.weights_path(config.model.pretrained, config.model.backbone),
            names=weights.torch_keys(first.pretrained_part()),
            entry=config.model.pretrained_entry,
            prefix=config.model.pretrained_prefix,
        )
        arrays = first.published_arrays(arrays)
        for backbone in model.backbones():
            yield backbone.pretrained_part(), arrays, f"model.pretrained={config.model.pretrained}"


def _single_task_paths(config: Config, pattern: str) -> dict[str, Path]:
    """Returns {main task: work directory or file of its single-task model}."""
    alternative = "start from model.pretrained with --model.options.init_single_task=False"
    if _PLACE not in pattern:
        raise ValueError(
            f"model.options.single_task is {pattern!r}; give the place of the single-task models with {_PLACE} where "
            f"they differ, as in runs/single_{_PLACE}, or {alternative}"
        )
    paths = {task: Path(pattern.replace(_PLACE, task)) for task in main_tasks(config)}
    missing = {task: path for task, path in paths.items() if not (path.is_file() or folders.holds_checkpoint(path))}
    if missing:
        listed = "".join(f"\n  {path}: {_command(config, task, path)}" for task, path in missing.items())
        raise FileNotFoundError(
            f"model {config.model.name} starts from trained single-task models, and these places have none. Train each "
            "with the command beside it, name other places with --model.options.single_task=PATTERN, or "
            f"{alternative}.{listed}"
        )
    return paths


def _command(config: Config, task: str, path: Path) -> str:
    """Returns the command that trains the single-task model of a task."""
    arguments = f"task={task},backbone={config.model.backbone}"
    if config.data.release != Data().release:
        arguments += f",release={config.data.release}"
    options = {
        "data.builder": config.data.builder,
        "model.head": config.model.head,
        f"model.heads.{task}": config.model.heads.get(task, ""),
        f"model.regression.{task}": config.model.regression.get(task, ""),
    }
    overrides = "".join(f" --{name}={value}" for name, value in options.items() if value)
    command = f"mtl train {config.data.dataset}_single:{arguments}"
    return f"{command} --workdir {path}{overrides}"


def _single_task_arrays(config: Config, task: str, path: Path, names: Collection[str]) -> Arrays:
    """Reads the weights of a single-task model under torch's names, from a file or a run's best checkpoint.

    Args:
        config: Configuration of the model that starts from it.
        task: Task of the single-task model.
        path: The file, or the work directory of the run.
        names: Torch keys of the single-task model. A prefix before them in the file is removed.
    """
    if path.is_file():
        arrays = weights.fit_names(weights.read_arrays(path), names, str(path))
    else:
        run = experiment.load_config(path)
        _check_run(run, config, task, path)
        arrays = weights.to_torch(restore.load(run, path, "best").state.model())
    if other := [key for key in arrays if not key.startswith(("backbone.", "decoder."))]:
        shown = ", ".join(other[:5])
        raise ValueError(f"{path} is no single-task model: beside backbone.* and decoder.* it holds {shown}")
    return arrays


def _check_run(run: Config, config: Config, task: str, path: Path) -> None:
    """Raises a ValueError unless a run has trained the single-task model that this configuration needs."""
    needed = {
        "model.name": ("single_task", run.model.name),
        "data.dataset": (config.data.dataset, run.data.dataset),
        "data.tasks": ((task,), main_tasks(run)),
        "model.backbone": (config.model.backbone, run.model.backbone),
        "data.release": (config.data.release, run.data.release),
        "the tfds builder": (experiment.make(config).builder_name, experiment.make(run).builder_name),
    }
    if wrong := [f"{name} is {got!r}, not {want!r}" for name, (want, got) in needed.items() if got != want]:
        raise ValueError(
            f"{path} is no run of the single-task model that {task} starts from: there {'; '.join(wrong)}. "
            "Correct model.options.single_task, or what differs in the configuration"
        )


def _below(arrays: Arrays, prefix: str) -> Arrays:
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
