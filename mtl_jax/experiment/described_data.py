"""Values that an experiment takes from a described data set, a folder of your own."""

import dataclasses
from pathlib import Path

from tensorflow_datasets.core import DatasetBuilder

from mtl_jax import config as configs
from mtl_jax import registry, tasks
from mtl_jax.config import Config
from mtl_jax.data import catalogue, datasets, description


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
        described = described_by(datasets.make_builder(data.builder, data_dir(config)))
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


def data_dir(config: Config) -> Path:
    """Returns the folder of the built data sets of a configuration."""
    return Path(config.data.data_dir or "~/tensorflow_datasets").expanduser()


def described_by(builder: DatasetBuilder) -> description.Description:
    """Returns what a built data set keeps of its folder's description."""
    return description.from_dict(dict(builder.info.metadata)["description"])
