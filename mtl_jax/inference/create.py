"""Networks by name, for training and experiments in Python."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtl_jax import backbones, experiment, models
from mtl_jax import tasks as task_table
from mtl_jax.config import Config, Data, Model, Train
from mtl_jax.models import MultiTaskModel
from mtl_jax.train import initial_weights

_OWN_DATA = "folder"  # the data set whose classes a configuration names


def list_models() -> list[str]:
    """Returns the names of the models that `create_model` makes."""
    return list(models.MODELS)


def list_backbones() -> list[str]:
    """Returns the names of the backbones that `create_model` takes."""
    return list(backbones.BACKBONES)


def create_model(
    name: str,
    backbone: str = "hrnet_w18",
    *,
    tasks: Sequence[str],
    dataset: str = "",
    num_classes: int | Mapping[str, int] | None = None,
    pretrained: bool | str | Path = False,
    aux_tasks: Sequence[str] = (),
    image_size: tuple[int, int] = (0, 0),
    head: str = "",
    options: Mapping[str, Any] | None = None,
    dtype: str = "float32",
    seed: int = 0,
    heads: Mapping[str, str] | None = None,
    regression: Mapping[str, str] | None = None,
) -> MultiTaskModel:
    """Builds a network from normalised images, float32 `[B, H, W, 3]`, to `Outputs`.

    Args:
        name: Name of the model, one of `list_models()`.
        backbone: Name of the backbone, one of `list_backbones()`.
        tasks: Main tasks.
        dataset: Data set that says the numbers of classes, a key of `mtl_jax.data.DATASETS`; empty where `num_classes`
            says them.
        num_classes: Number of classes of the task that predicts class ids, or {task: number} for several such tasks.
        pretrained: True for the usual published weights of the backbone, which are downloaded once or come with an
            extra; or the name of others (`mtl list weights`); or the path of a file; False for random ones.
        aux_tasks: Tasks of the intermediate predictions of PAD-Net and MTI-Net; empty = the main tasks.
        image_size: (height, width) of the images in pixels, for backbones that depend on it; (0, 0) = the data set's.
        head: The heads, see `mtl_jax.heads.build`; empty = the one that goes with the backbone.
        options: Options of the model, {name: value}; see the model's own class of options.
        dtype: Computation dtype, "float32" or "bfloat16".
        seed: Seed of the random weights.
        heads: {task: its head}; other tasks have `head`.
        regression: {task: how its head computes values such as depth}, see `mtl_jax.heads.build`.

    Raises:
        ValueError: A name is unknown, the tasks or numbers of classes do not go together, or the weights do not fit.
        FileNotFoundError, OSError: Weights are missing, or cannot be downloaded.
    """
    given = dict(options or {})
    if models.MODELS[name].options is models.SoftSharingOptions:
        given.setdefault("init_single_task", False)  # it would ask for trained single-task models
    source = backbones.default_weights(backbone) if pretrained is True else str(pretrained or "")
    size = tuple(image_size)
    data = Data(
        dataset or _OWN_DATA,
        tuple(tasks),
        tuple(aux_tasks),
        image_size=(size[0], size[1]),
        class_names=_class_names((*tasks, *aux_tasks), dataset, num_classes),
    )
    model = Model(
        name,
        backbone,
        head,
        pretrained=source,
        options=given,
        dtype=dtype,
        heads=dict(heads or {}),
        regression=dict(regression or {}),
    )
    return initial_weights.build_model(experiment.make(Config(data, model, train=Train(seed=seed))).config)


def _class_names(
    tasks: Sequence[str], dataset: str, num_classes: int | Mapping[str, int] | None
) -> dict[str, tuple[str, ...]]:
    """Returns {task: placeholders for the names of its classes} for a number of classes in place of a data set."""
    with_classes = [task for task in task_table.ordered(tasks) if task_table.get(task).kind.has_classes]
    if dataset:
        if num_classes is not None:
            raise ValueError(f"dataset={dataset!r} says the number of classes; leave num_classes out")
        return {}
    numbers = dict(num_classes) if isinstance(num_classes, Mapping) else {}
    if isinstance(num_classes, int):
        if len(with_classes) != 1:
            raise ValueError(
                f"num_classes is {num_classes}, and the tasks with classes are {', '.join(with_classes) or 'none'}; "
                "give {task: number}"
            )
        numbers = {with_classes[0]: num_classes}
    if set(numbers) != set(with_classes) or not all(number >= 1 for number in numbers.values()):
        raise ValueError(
            f"num_classes is {num_classes!r}; give a number of at least 1 for each of "
            f"{', '.join(with_classes) or 'no task'}, or a dataset that says them"
        )
    return {task: tuple(f"class {i}" for i in range(number)) for task, number in numbers.items()}
