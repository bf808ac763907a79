"""One experiment: a configuration together with everything that its names stand for.

Training, evaluation, prediction, export and reports all start from an `Experiment`, so that a checkpoint is read by the
same model that wrote it. The configuration of a run is stored in its work directory.
"""

import copy
import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import optax
from tensorflow_datasets.core import DatasetBuilder

from mtl_jax import config as configs
from mtl_jax import configured_optim, folders, metrics, models, optim, registry, tasks
from mtl_jax import protocol as protocols
from mtl_jax.config import Config
from mtl_jax.config import file as config_file
from mtl_jax.data import augmentation, catalogue, datasets, description
from mtl_jax.data.augmentation import Recipe
from mtl_jax.data.catalogue import Dataset
from mtl_jax.data.split import Split
from mtl_jax.data.training_labels import TrainingLabels
from mtl_jax.labels import Conventions
from mtl_jax.losses import Objective
from mtl_jax.protocol import Protocol
from mtl_jax.tasks import Criterion

logger = logging.getLogger(__name__)

CONFIG = "config.json"


@dataclass(frozen=True)
class Experiment:
    """A configuration, and what its names stand for; `make` makes one.

    Every property is computed when it is first read, so an experiment costs nothing that is not used.

    Attributes:
        config: The configuration, which nobody changes any more.
    """

    config: Config

    @cached_property
    def dataset(self) -> Dataset:
        """The row of the data set."""
        return catalogue.get(self.config.data.dataset)

    @cached_property
    def builder_name(self) -> str:
        """The name of the TFDS builder that serves the data, for example "nyud_mt/astmt"."""
        return self.config.data.builder or self.dataset.builder(self.config.data.release)

    @cached_property
    def conventions(self) -> Conventions:
        """The label conventions of the data."""
        data = self.config.data
        conventions = catalogue.conventions(data.dataset, data.builder or self.dataset.builders.get(data.release, ""))
        return dataclasses.replace(conventions, axes=data.axes or conventions.axes)

    @cached_property
    def class_names(self) -> dict[str, tuple[str, ...]]:
        """{task: names of its classes}, of the configuration or else of the data set's row."""
        return {**self.dataset.class_names, **self.config.data.class_names}

    @cached_property
    def data_dir(self) -> Path:
        """The folder of the built data sets."""
        return _data_dir(self.config)

    @cached_property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of network inputs in pixels."""
        return configs.image_size(self.config)

    @cached_property
    def recipe(self) -> Recipe:
        """The augmentation of training images, which also says how validation images are placed."""
        data = self.config.data
        return augmentation.get_recipe(data.augmentation or self.dataset.recipe(data.release))

    @cached_property
    def main_tasks(self) -> tuple[str, ...]:
        """The main tasks in task order."""
        return configs.main_tasks(self.config)

    @cached_property
    def aux_tasks(self) -> tuple[str, ...]:
        """The tasks of intermediate predictions in task order."""
        return configs.aux_tasks(self.config)

    @cached_property
    def all_tasks(self) -> tuple[str, ...]:
        """Every task whose label training needs, in task order."""
        return configs.all_tasks(self.config)

    @cached_property
    def channels(self) -> dict[str, int]:
        """{main task: logit channels}."""
        return configs.num_channels(self.config, self.main_tasks)

    @cached_property
    def objective(self) -> Objective:
        """The function that training minimises, see `make_objective`, with the losses of the configuration."""
        return self.make_objective(self.config.losses)

    def make_objective(self, losses: Mapping[str, str]) -> Objective:
        """Returns the function that training minimises.

        The weights of the task table balance several tasks, so a task on its own has the weight 1.

        Args:
            losses: {task: its loss}; the other tasks have the loss of the task table.
        """
        alone = {self.main_tasks[0]: 1.0} if len(self.all_tasks) == 1 else {}
        return Objective(self.main_tasks, alone | self.config.loss_weights, losses)

    @cached_property
    def protocol(self) -> Protocol:
        """The evaluation protocol."""
        return protocols.get(self.config.train.eval_protocol, self.config.train.depth_protocol)

    @cached_property
    def protocol_description(self) -> dict[str, str]:
        """Description of the protocol, which two results must share to be comparable."""
        return self.protocol.describe(self.builder_name, self.dataset.describe_edges(self.protocol.name))

    @cached_property
    def streaming_metrics(self) -> dict[str, metrics.Metric]:
        """{main task: its metric} of evaluations during training."""
        return self._metrics(final=False)

    @cached_property
    def final_metrics(self) -> dict[str, metrics.Metric]:
        """{main task: its metric} of the final protocol."""
        return self._metrics(final=True)

    @cached_property
    def streaming_criteria(self) -> dict[str, Criterion]:
        """{main task: metric that decides which of two models is better} of evaluations during training."""
        return self.protocol.criteria(self.main_tasks, final=False)

    @cached_property
    def final_criteria(self) -> dict[str, Criterion]:
        """{main task: metric that decides which of two models is better} of the final protocol."""
        return self.protocol.criteria(self.main_tasks, final=True)

    def _metrics(self, *, final: bool) -> dict[str, metrics.Metric]:
        return {
            name: metrics.build(
                tasks.get(name).metric,
                num_classes=n,
                depth_protocol=self.protocol.depth,
                final=final,
                empty_is_unlabelled=name in self.conventions.empty_is_unlabelled,
            )
            for name, n in self.channels.items()
        }

    def prepare_data(self) -> DatasetBuilder:
        """Returns the builder of the data set, which is built first where it is not.

        The original files are compared with the built data set at the first call.

        Raises:
            ValueError: The names of the classes differ from those of the configuration, or see `datasets.prepare`.
            OSError: See `datasets.prepare`.
        """
        return self._builder

    @cached_property
    def _builder(self) -> DatasetBuilder:
        builder = datasets.prepare(self.builder_name, self.data_dir, self.config.data.manual_dir or None)
        if self.dataset.described:
            built = _described(builder).class_names
            for task, wanted in self.config.data.class_names.items():
                if built.get(task) != tuple(wanted):
                    raise ValueError(
                        f"the classes of {task} in {builder.data_path} are {built.get(task)}, those of the "
                        f"configuration {tuple(wanted)}; train anew, or build the data set as it was"
                    )
        return builder

    def open_split(self, split: str, names: Sequence[str]) -> Split:
        """Returns the records of a split, with all labels; the data set is built first where it is not.

        A single-task experiment has only the images with a label of its task.

        Args:
            split: "train" or "val".
            names: Tasks whose labels are read.

        Raises:
            ValueError, OSError: See `prepare_data` and `datasets.open_split`.
        """
        return datasets.open_split(self.prepare_data(), split, names, only_labelled=len(self.all_tasks) == 1)

    @cached_property
    def training_labels(self) -> TrainingLabels:
        """The training split with the labels that training uses; the data set is built first where it is not.

        Raises:
            ValueError, OSError: See `prepare_data`.
        """
        data = self.config.data
        return TrainingLabels(
            self.prepare_data(),
            self.all_tasks,
            data.label_fraction,
            data.label_images,
            data.label_seed,
            self.recipe.looks_at,
        )

    def learning_rate(self, steps_per_epoch: int) -> optim.Schedule:
        """Returns the schedule optimiser step -> learning rate."""
        return configured_optim.learning_rate(self.config, steps_per_epoch)

    def optimizer(
        self, steps_per_epoch: int, learning_rate: optim.Schedule | None = None
    ) -> optax.GradientTransformation:
        """Returns the optimiser with its schedule over steps.

        Args:
            steps_per_epoch: Number of steps of an epoch.
            learning_rate: Schedule over steps in place of the configured one.
        """
        rate = learning_rate or self.learning_rate(steps_per_epoch)
        return configured_optim.optimizer(self.config, self.parameter_groups, rate)

    @cached_property
    def parameter_groups(self) -> configured_optim.ParameterGroups:
        """The result of `configured_optim.parameter_groups`."""
        return configured_optim.parameter_groups(self.config)


def make(config: Config | Experiment) -> Experiment:
    """Returns the experiment of a configuration, or the given experiment itself.

    Values under older names are moved to the new names, what the data set decides is filled in (`data.border`), and the
    modules in `imports` are loaded.

    Args:
        config: A configuration for which `resolve` has nothing left to fill in. The experiment has a copy of it.

    Raises:
        ValueError: The configuration does not work, see `config.validate`, or a module cannot be found.
    """
    if isinstance(config, Experiment):
        return config
    registry.load_extensions(config.imports)
    config = configs.validate(configs.with_new_names(copy.deepcopy(config)))
    if not config.data.border:
        border = Experiment(config).conventions.border
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, border=border))
    return Experiment(config)


def resolve(config: Config) -> Config:
    """Returns the configuration with values under their new names and with what a described data set says about itself.

    A described data set is a folder of your own with a description: it says builder, classes, tasks and image size. The
    modules in `imports` are loaded.

    Raises:
        ValueError: A description is faulty, or does not go with the configuration; or a module cannot be found.
        FileNotFoundError: There is no description.
    """
    registry.load_extensions(config.imports)
    config = configs.with_new_names(config)
    data = config.data
    if not catalogue.get(data.dataset).described:
        return config
    if data.manual_dir:
        described = description.read(data.manual_dir)
    elif data.builder:
        described = _described(datasets.make_builder(data.builder, _data_dir(config)))
    else:
        raise ValueError(
            f"data.dataset is {data.dataset!r} and data.manual_dir is empty; give the folder that has "
            f"{description.FILE} in it: folder:root=DIR as the recipe, or --data.manual_dir=DIR"
        )
    main = data.tasks or tuple(described.labels)
    names = tasks.ordered((*main, *data.aux_tasks))
    if lost := [task for task in names if task not in described.labels]:
        raise ValueError(
            f"data.tasks / data.aux_tasks name {', '.join(lost)}, but {data.manual_dir or data.builder} has "
            f"{', '.join(described.labels)}; change the tasks, or describe them there"
        )
    filled = dataclasses.replace(
        data,
        builder=f"folder_mt/{described.name}",
        class_names={task: listed for task, listed in described.class_names.items() if task in names},
        tasks=main,
        axes=data.axes or described.axes,
        image_size=described.image_size if tuple(data.image_size) == (0, 0) else data.image_size,
    )
    return dataclasses.replace(config, data=filled)


def _data_dir(config: Config) -> Path:
    return Path(config.data.data_dir or "~/tensorflow_datasets").expanduser()


def _described(builder: DatasetBuilder) -> description.Description:
    """Returns what a built data set keeps of its folder's description."""
    return description.from_dict(dict(builder.info.metadata)["description"])


def check_continues(config: Config, workdir: str | Path, *, allow_change: bool = False) -> None:
    """Compares a configuration with that of the run in a work directory, which it is to continue.

    Args:
        config: The configuration.
        workdir: The work directory.
        allow_change: Differences, or a stored configuration that cannot be read, are a warning instead of an error.

    Raises:
        ValueError: The run has another configuration; every difference is listed. Or see `load_config`.
        FileNotFoundError: See `load_config`.
    """
    try:
        listed = differences(config, workdir)
    except (FileNotFoundError, ValueError) as error:
        if not allow_change:
            raise
        listed = f"it is not compared with that of the run, because: {error}"
    if listed:
        if not allow_change:
            raise ValueError(
                f"{workdir} holds a run with another configuration ({listed}); continue it with the old values, "
                "give another --workdir, or let it go on with the new ones by --allow_config_change"
            )
        logger.warning("%s goes on with another configuration: %s", workdir, listed)


def store_config(config: Config, workdir: str | Path) -> None:
    """Writes the configuration and its checksum into a work directory, which is made where it is not."""
    # Evaluation may be started from another folder, so the data's place is stored as an absolute path.
    stored = dataclasses.replace(
        config, data=dataclasses.replace(config.data, data_dir=str(_data_dir(config).resolve()))
    )
    path = Path(workdir) / CONFIG
    path.parent.mkdir(parents=True, exist_ok=True)
    config_file.write(path, configs.to_json(stored))


def differences(config: Config, workdir: str | Path) -> str:
    """Returns a list of the fields in which the run in a work directory differs from a configuration.

    Fields that may change when a run continues do not count. The text is empty where nothing differs.

    Raises:
        FileNotFoundError, ValueError: See `load_config`.
    """
    old, new = (_fixed_on_resume(make(each).config) for each in (load_config(workdir), config))
    return "; ".join(
        f"{name}: {old.get(name)!r} there, {new[name]!r} now" for name in new if old.get(name) != new[name]
    )


def _fixed_on_resume(config: Config) -> dict[str, object]:
    """Returns {field: value} of all fields that must not change when a run continues, options of the model included."""
    options = {name: value for name, value, rules in models.option_fields(config) if not rules.may_change}
    return configs.fixed_on_resume(config) | options


def identity(config: Config) -> dict[str, object]:
    """Returns {field: value} of all fields that runs of one experiment share, options of the model included."""
    options = {name: value for name, value, rules in models.option_fields(config) if not rules.same_experiment}
    return configs.identity(config) | options


def load_config(workdir: str | Path) -> Config:
    """Returns the configuration that is stored in a work directory, and loads the modules in its `imports`.

    What a described folder says is part of the stored configuration, so the folder itself is not needed any more.

    Raises:
        FileNotFoundError: The directory has no configuration, or is a saved model.
        ValueError: The configuration is damaged, or cannot be understood.
    """
    folders.check_is_run(workdir)
    config = read_config(workdir)
    registry.load_extensions(config.imports)
    if catalogue.get(config.data.dataset).described:
        config.data.manual_dir = ""
    return config


def read_config(folder: str | Path) -> Config:
    """Returns the configuration that is stored in a folder, and imports nothing.

    Raises:
        FileNotFoundError: The folder has no configuration.
        ValueError: The configuration is damaged, or cannot be understood.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is no work directory of a run: it has no {CONFIG}. Give the --workdir of a training run"
        )
    return configs.from_json(config_file.read(path), str(path))
