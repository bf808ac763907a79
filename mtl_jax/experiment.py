"""From a configuration to the things it names: data, model, optimiser, metrics.

Training, evaluation and prediction start here, so that a checkpoint is read by the same model that wrote it.
"""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import optax
from flax import nnx
from tensorflow_datasets.core import DatasetBuilder

from mtl_jax import metrics, models, optim, tasks
from mtl_jax import protocol as protocols
from mtl_jax.config import Config, all_tasks, from_json, main_tasks, num_channels, to_json
from mtl_jax.data import datasets, description
from mtl_jax.data.datasets import Dataset
from mtl_jax.data.split import Split
from mtl_jax.data.transforms import Recipe
from mtl_jax.losses import Objective
from mtl_jax.protocol import Protocol
from mtl_jax.runtime import atomic_files

logger = logging.getLogger(__name__)

CONFIG = "config.json"
# What may differ between a run and its continuation: where files lie, what it started from, speed and memory.
_FREE = {
    "data.data_dir",
    "data.manual_dir",
    "data.num_workers",
    "data.skip_corrupt",
    "model.pretrained",
    "model.options.init_single_task",
    "model.options.single_task",
    "model.remat",
    "train.split_state",
    "train.log_every",
    "train.checkpoint_every",
}


def dataset(config: Config) -> Dataset:
    """The data set's row."""
    return datasets.get(config.data.dataset)


def resolve(config: Config) -> Config:
    """The configuration with what a described data set says about itself: builder, classes, tasks and image size.

    Raises:
        ValueError: a faulty description, or one that does not go with the configuration.
        FileNotFoundError: no description.
    """
    data = config.data
    if not dataset(config).described:
        return config
    if data.manual_dir:
        found = description.read(data.manual_dir)
    elif data.builder:
        found = _described(datasets.make_builder(data.builder, data_dir(config)))
    else:
        raise ValueError(
            f"data.dataset is {data.dataset!r} and data.manual_dir is empty; give the folder that has "
            f"{description.FILE} in it: --config.data.manual_dir=DIR"
        )
    main = data.tasks or tuple(found.labels)
    names = tasks.ordered((*main, *data.aux_tasks))
    if lost := [task for task in names if task not in found.labels]:
        raise ValueError(
            f"data.tasks / data.aux_tasks name {', '.join(lost)}, but {data.manual_dir or data.builder} has "
            f"{', '.join(found.labels)}; change the tasks, or describe them there"
        )
    filled = dataclasses.replace(
        data,
        builder=f"folder_mt/{found.name}",
        class_names={task: listed for task, listed in found.class_names.items() if task in names},
        tasks=main,
        image_size=found.image_size if tuple(data.image_size) == (0, 0) else data.image_size,
    )
    return dataclasses.replace(config, data=filled)


def builder_name(config: Config) -> str:
    """The tfds builder that serves the data."""
    return config.data.builder or dataset(config).builder(config.data.protocol)


def image_size(config: Config) -> tuple[int, int]:
    """(height, width) of network inputs in pixels."""
    height, width = config.data.image_size
    return (height, width) if (height, width) != (0, 0) else dataset(config).image_size


def recipe(config: Config) -> Recipe:
    """The augmentation."""
    return dataset(config).recipe(config.data.protocol)


def data_dir(config: Config) -> Path:
    """Where built data sets live."""
    return Path(config.data.data_dir or "~/tensorflow_datasets").expanduser()


def open_split(config: Config, split: str, names: Sequence[str]) -> Split:
    """The records of a split with the labels of these tasks; the data set is built first where it is not.

    A single-task run sees only the images that have its label.
    """
    builder = datasets.prepare(builder_name(config), data_dir(config), config.data.manual_dir or None)
    if dataset(config).described:
        built = _described(builder).class_names
        for task, wanted in config.data.class_names.items():
            if built.get(task) != tuple(wanted):
                raise ValueError(
                    f"the classes of {task} in {builder.data_path} are {built.get(task)}, those of the configuration "
                    f"{tuple(wanted)}; train anew, or build the data set as it was"
                )
    return datasets.open_split(builder, split, names, only_labelled=len(all_tasks(config)) == 1)


def _described(builder: DatasetBuilder) -> description.Description:
    """What a built data set keeps of its folder's description."""
    return description.from_dict(dict(builder.info.metadata)["description"])


def build_model(config: Config, *, rngs: nnx.Rngs | None = None) -> models.MultiTaskModel:
    """Builds the model of a configuration, for images of the size that the configuration or the data set prescribes.

    Args:
        config: The configuration.
        rngs: Source of the initial weights; by default one seeded with `train.seed`.

    Raises:
        ValueError: See `mtl_jax.models.build`.
    """
    return models.build(config, rngs=rngs, image_size=image_size(config))


def build_optimizer(config: Config, steps_per_epoch: int) -> optax.GradientTransformation:
    """The optimiser with its schedule over steps."""
    return optim.make_optimizer(
        config.optim.name,
        learning_rate(config, steps_per_epoch),
        weight_decay=config.optim.weight_decay,
        momentum=config.optim.momentum,
        multipliers=dict.fromkeys(models.fusions(config), config.optim.fusion_lr_multiplier),
    )


def learning_rate(config: Config, steps_per_epoch: int) -> optim.Schedule:
    """Optimiser step -> learning rate."""
    options, epochs = config.optim, config.train.epochs
    schedule = optim.make_schedule(
        options.schedule, options.lr, epochs, decay_epochs=options.decay_epochs, decay_rate=options.decay_rate
    )
    return optim.per_step(schedule, steps_per_epoch, epochs)


def build_objective(config: Config) -> Objective:
    """What training minimises. The weights of the tasks balance them, so a task on its own has the weight 1."""
    names = main_tasks(config)
    return Objective(names, {names[0]: 1.0} if len(all_tasks(config)) == 1 else None)


def build_metrics(config: Config, *, final: bool) -> dict[str, metrics.Metric]:
    """{main task: its metric}, of the final protocol or of evaluation while training."""
    channels = num_channels(config, main_tasks(config))
    return {
        name: metrics.build(tasks.get(name).metric, num_classes=n, depth_protocol=protocol(config).depth, final=final)
        for name, n in channels.items()
    }


def protocol(config: Config) -> Protocol:
    """The rules of evaluation."""
    return protocols.get(config.train.eval_protocol, config.train.depth_protocol)


def describe_protocol(config: Config) -> dict[str, str]:
    """What numbers have to share to be compared."""
    return protocol(config).describe(builder_name(config), config.data.dataset)


def criteria(config: Config, *, final: bool) -> dict[str, tasks.Criterion]:
    """{main task: the metric that decides}, by the final protocol or while training."""
    return protocol(config).criteria(main_tasks(config), final=final)


def claim_workdir(config: Config, workdir: str | Path, *, resumes: bool, allow_change: bool = False) -> None:
    """Writes the configuration into the work directory, after comparing it with that of the run there.

    Args:
        resumes: the directory holds a checkpoint, which the configuration has to fit.
        allow_change: differences are listed in a warning.

    Raises:
        ValueError: the directory belongs to a run with another configuration; every difference is listed.
    """
    if resumes and (listed := differences(config, workdir)):
        if not allow_change:
            raise ValueError(
                f"{workdir} holds a run with another configuration ({listed}); continue it with the old values, "
                "give another --workdir, or let it go on with the new ones by --allow_config_change"
            )
        logger.warning("%s goes on with another configuration: %s", workdir, listed)
    # Evaluation may be started from another folder, so the data's place is stored as an absolute path.
    stored = dataclasses.replace(
        config, data=dataclasses.replace(config.data, data_dir=str(data_dir(config).resolve()))
    )
    path = Path(workdir) / CONFIG
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_files.write(path, to_json(stored))


def differences(config: Config, workdir: str | Path) -> str:
    """What the run in a work directory has otherwise than this configuration, listed; empty if nothing that matters.

    Raises:
        FileNotFoundError, ValueError: as `load_config`.
    """
    old, new = flat(load_config(workdir)), flat(config)
    changed = [name for name in old | new if old.get(name) != new.get(name) and name not in _FREE]
    return "; ".join(f"{name}: {old.get(name)!r} there, {new.get(name)!r} now" for name in changed)


def load_config(workdir: str | Path) -> Config:
    """The configuration stored in a work directory.

    What a described folder says is part of it, so the folder itself is not asked for any more.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it cannot be understood.
    """
    path = Path(workdir) / CONFIG
    if not path.is_file():
        raise FileNotFoundError(
            f"{workdir} is no work directory of a run: it has no {CONFIG}. Give the --workdir of a training run"
        )
    config = from_json(path.read_text(encoding="utf-8"), str(path))
    if dataset(config).described:
        config.data.manual_dir = ""
    return config


def flat(config: Config) -> dict[str, object]:
    """{section.field: value} of all fields; the options of the model are fields of the section `model.options`."""
    sections = {name: getattr(config, name) for name in ("data", "model", "optim", "train")}
    nested = {f"{section}.{name}": value for section, part in sections.items() for name, value in vars(part).items()}
    options = nested.pop("model.options")
    nested |= {f"model.options.{name}": value for name, value in options.items()}
    return nested | {"balancing": config.balancing}
