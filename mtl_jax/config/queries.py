"""Values that several fields of a configuration give together: tasks, channels, sizes, and fields that runs share."""

from collections.abc import Iterable
from typing import Any

from mtl_jax import tasks as task_table
from mtl_jax.config.rules import fields
from mtl_jax.config.sections import EMA, TRAINED, Config
from mtl_jax.data import augmentation, catalogue

_OF_A_HOST = ("data.data_dir", "data.manual_dir", "data.num_workers")


def main_tasks(config: Config) -> tuple[str, ...]:
    """Returns the main tasks in task order."""
    return task_table.ordered(config.data.tasks)


def aux_tasks(config: Config) -> tuple[str, ...]:
    """Returns the auxiliary tasks in task order; the main tasks where the configuration names no auxiliary ones."""
    return task_table.ordered(config.data.aux_tasks or config.data.tasks)


def all_tasks(config: Config) -> tuple[str, ...]:
    """Returns every task whose label training needs, in task order."""
    return task_table.ordered((*config.data.tasks, *config.data.aux_tasks))


def num_channels(config: Config, names: Iterable[str]) -> dict[str, int]:
    """Returns {task: logit channels}.

    Args:
        config: The configuration, which names the data set and may name the classes.
        names: Names of the tasks.

    Raises:
        ValueError: The data set has no labels for one of the tasks.
    """
    return catalogue.get(config.data.dataset).num_logits(names, config.data.class_names)


def image_size(config: Config) -> tuple[int, int]:
    """Returns (height, width) of network inputs in pixels; (0, 0) where a folder of one's own has yet to say it.

    Raises:
        ValueError: The data set or the augmentation is unknown.
    """
    data = config.data
    if tuple(data.image_size) != (0, 0):
        height, width = data.image_size
        return height, width
    sizes = augmentation.get_recipe(data.augmentation).sizes if data.augmentation else {}
    return sizes.get(data.dataset, catalogue.get(data.dataset).image_size)


def eval_batch_size(config: Config) -> int:
    """Returns the number of images of a global batch of evaluation."""
    return config.train.eval_batch_size or config.train.batch_size


def eval_weights(config: Config) -> str:
    """Returns the weights of a checkpoint that evaluations in training score: "ema" or "trained"."""
    return config.train.eval_weights or (EMA if config.train.ema else TRAINED)


def fixed_on_resume(config: Config) -> dict[str, Any]:
    """Returns {"section.field": value} of the fields that must not change when a run continues.

    A field outside of a section is listed as {"field": value}.
    """
    return {name: value for name, value, rules in fields(config) if not rules.may_change}


def identity(config: Config) -> dict[str, Any]:
    """Returns the fields that runs of one experiment share, in the form of `fixed_on_resume`.

    Such runs may differ in chance, places and speed: the seed, for example, or the number of worker processes.
    """
    return {name: value for name, value, rules in fields(config) if not rules.same_experiment}


def shared_by_processes(config: Config) -> dict[str, Any]:
    """Returns {field: value} of all fields that the processes of one run share, options of the model included.

    Folders and numbers of worker processes may differ from host to host.
    """
    return {name: value for name, value, _ in fields(config) if name not in _OF_A_HOST}
