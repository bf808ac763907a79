"""The experiment of a configuration."""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import optax
from tensorflow_datasets.core import DatasetBuilder

from mtl_jax import config as configs
from mtl_jax import metrics, optim, registry, tasks
from mtl_jax import protocol as protocols
from mtl_jax.config import Config
from mtl_jax.data import augmentation, catalogue, datasets
from mtl_jax.data.augmentation import Recipe
from mtl_jax.data.catalogue import Dataset
from mtl_jax.data.split import Split
from mtl_jax.data.training_labels import TrainingLabels
from mtl_jax.experiment import configured_optim, described_data
from mtl_jax.labels import Conventions
from mtl_jax.losses import Objective
from mtl_jax.protocol import Protocol
from mtl_jax.tasks import Criterion


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
        return described_data.data_dir(self.config)

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
            built = described_data.described_by(builder).class_names
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
