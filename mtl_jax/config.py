"""The configuration of an experiment: plain typed dataclasses, the only module that files in configs/ import.

Fields can be overridden on the command line (`--config.optim.lr=3e-4`), so they are mutable and nothing is derived from
them before all overrides are in. `validate` checks the finished configuration.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeVar

from mtl_jax import tasks as task_table
from mtl_jax.protocol import PROTOCOLS

Recipe = TypeVar("Recipe")


@dataclass
class Data:
    """What is learned from which images.

    Attributes:
        dataset: label conventions and resolution, a key of `mtl_jax.data.DATASETS`: nyud, pascal, or folder for a
            folder of one's own.
        tasks: main tasks.
        aux_tasks: tasks supervised at the intermediate predictions of PAD-Net and MTI-Net; empty = the main tasks.
        protocol: "astmt" or "survey": release of the data set, augmentation.
        builder: tfds builder and its config; empty = the data set's own, `rendered_scenes/nyud` = the embedded scenes.
        data_dir: where built data sets live; empty = ~/tensorflow_datasets.
        manual_dir: folder or archive with the original files, read when the data set is built; one's own folder.
        image_size: (height, width) of network inputs in pixels; (0, 0) = the data set's resolution.
        border: label outside a rotated image: "zero" as in the literature, or "ignore".
        num_workers: processes that read and transform images; 0 = none.
        skip_corrupt: training goes on without images that cannot be read: each time another takes the place, with a
            warning. Evaluation needs every image.
        class_names: {task: names of its classes}, for a folder of one's own; filled in from its description.
    """

    dataset: str = "nyud"
    tasks: tuple[str, ...] = ()
    aux_tasks: tuple[str, ...] = ()
    protocol: str = "astmt"
    builder: str = ""
    data_dir: str = ""
    manual_dir: str = ""
    image_size: tuple[int, int] = (0, 0)
    border: str = "zero"
    num_workers: int = 4
    skip_corrupt: bool = False
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass
class Model:
    """Architecture.

    Attributes:
        name: Name of the model, a key of `mtl_jax.models.MODELS`.
        backbone: Name of the backbone, a key of `mtl_jax.backbones.BACKBONES`.
        head: Name of the heads, a key of `mtl_jax.heads.HEADS`; empty = deeplab for a backbone with one map, hrnet for
            several.
        pretrained: Weights of the backbone: "imagenet", the path of a file with torch-named arrays, or empty for
            random ones.
        options: Options of this model alone, {name: value}. The class of a model's options lists them:
            `mtl_jax.models.SoftSharingOptions` for cross_stitch and nddr_cnn; the other models have none. The command
            line overrides an option that the configuration file gives a value: `--config.model.options.alpha=0.8`.
        remat: Names of the stages whose activations are recomputed in the backward pass instead of being stored. That
            saves memory on a GPU, none on a CPU, and costs up to one more forward pass. The stages are those of the
            backbone (conv, layer1, stage2, ...), heads, scale_0 to scale_3 of MTI-Net, fusion, initial_predictions and
            distillation of PAD-Net, and attention_1 to attention_4 of MTAN.
        dtype: Computation dtype, "float32" or "bfloat16"; parameters, statistics and losses stay float32.
    """

    name: str = "mti_net"
    backbone: str = "hrnet_w18"
    head: str = ""
    pretrained: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    remat: tuple[str, ...] = ()
    dtype: str = "float32"


@dataclass
class Optim:
    """Optimiser, torch's semantics: the weight decay is added to the gradient.

    Attributes:
        name: "adam" or "sgd".
        lr: learning rate of epoch 0.
        weight_decay: coupled L2 coefficient, applied to every parameter.
        momentum: of sgd.
        schedule: "poly" (lr * (1 - epoch / epochs) ** 0.9), "step" or "constant".
        decay_epochs: of "step": each epoch after one of these multiplies the rate by `decay_rate` once.
        decay_rate: of "step".
        fusion_lr_multiplier: of the parameters that exchange features between tasks in cross-stitch and NDDR-CNN.
    """

    name: str = "adam"
    lr: float = 1e-4
    weight_decay: float = 1e-4
    momentum: float = 0.9
    schedule: str = "poly"
    decay_epochs: tuple[int, ...] = ()
    decay_rate: float = 0.1
    fusion_lr_multiplier: float = 100.0


@dataclass
class Train:
    """The run.

    Attributes:
        batch_size: global batch size of an optimiser step, over all devices of all processes.
        accumulate: micro-batches that a batch is split into, one after the other, to save memory. Losses and gradients
            stay those of the whole batch, but for batch norm: every micro-batch is normalised with its own statistics
            and moves the running ones in its turn. Dropout's masks are others, too.
        batch_norm_groups: equal parts of the batch, or of each micro-batch, that batch norm normalises with their own
            statistics, as the devices of torch's DataParallel, and of DistributedDataParallel without SyncBatchNorm,
            do; the first part moves the running ones. 1 = statistics of the whole, over all devices.
        split_state: large arrays of parameters and optimiser are split over the devices instead of being whole on each,
            and gathered for a step: less memory for more communication (ZeRO, arXiv 1910.02054).
        epochs: passes over the training split.
        seed: of the initial weights, the order of the images, the augmentation and dropout.
        eval_final_epochs: evaluate after each of the last so many epochs; 0 = after every epoch.
        eval_batch_size: global batch size of evaluation; 0 = the training batch size.
        eval_protocol: how predictions are scored, a key of `mtl_jax.protocol.PROTOCOLS`: survey, astmt or invpt.
        depth_protocol: "image" (mean over images of each one's RMSE) or "pixel" (over all pixels); "" = that of
            `eval_protocol`.
        log_every: steps between two lines of the log.
        checkpoint_every: steps between checkpoints, besides the one after every epoch; 0 = only that one.
    """

    batch_size: int = 8
    accumulate: int = 1
    batch_norm_groups: int = 1
    split_state: bool = False
    epochs: int = 100
    seed: int = 0
    eval_final_epochs: int = 10
    eval_batch_size: int = 0
    eval_protocol: str = "survey"
    depth_protocol: str = ""
    log_every: int = 20
    checkpoint_every: int = 0


PLAIN_BALANCING = "fixed"


@dataclass
class Config:
    """One experiment.

    Attributes:
        balancing: how the tasks' losses or gradients are combined: "fixed" by the task table's weights, or a method of
            `mtl_jax.balancing` with its parameters, as in "cagrad" and "dwa:temperature=2,window=100".
    """

    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    optim: Optim = field(default_factory=Optim)
    train: Train = field(default_factory=Train)
    balancing: str = PLAIN_BALANCING


def main_tasks(config: Config) -> tuple[str, ...]:
    """The main tasks in task order."""
    return task_table.ordered(config.data.tasks)


def aux_tasks(config: Config) -> tuple[str, ...]:
    """The auxiliary tasks in task order; the main ones where none are named."""
    return task_table.ordered(config.data.aux_tasks or config.data.tasks)


def all_tasks(config: Config) -> tuple[str, ...]:
    """Every task whose label is needed for training, in task order."""
    return task_table.ordered((*config.data.tasks, *config.data.aux_tasks))


def num_channels(config: Config, names: Iterable[str]) -> dict[str, int]:
    """{task: logit channels}

    Raises:
        ValueError: the data set has no labels for one of the tasks.
    """
    classes = {task: len(listed) for task, listed in config.data.class_names.items()}
    return task_table.num_channels(names, config.data.dataset, classes)


_CHOICES = {
    "data.protocol": ("astmt", "survey"),
    "data.border": ("zero", "ignore"),
    "model.dtype": ("float32", "bfloat16"),
    "optim.name": ("adam", "sgd"),
    "optim.schedule": ("poly", "step", "constant"),
    "train.eval_protocol": tuple(PROTOCOLS),
    "train.depth_protocol": ("", "image", "pixel"),
}
_MINIMUM = {
    "data.num_workers": 0,
    "optim.weight_decay": 0,
    "optim.momentum": 0,
    "optim.decay_rate": 0,
    "optim.fusion_lr_multiplier": 0,
    "train.seed": 0,
    "train.batch_size": 1,
    "train.accumulate": 1,
    "train.batch_norm_groups": 1,
    "train.epochs": 1,
    "train.eval_final_epochs": 0,
    "train.eval_batch_size": 0,
    "train.log_every": 1,
    "train.checkpoint_every": 0,
}


def validate(config: Config) -> Config:
    """The configuration itself, once every field makes sense.

    Raises:
        ValueError: names every field that does not, what it holds and what it may hold.
    """
    problems = []
    for path, choices in _CHOICES.items():
        value = _lookup(config, path)
        if value not in choices:
            problems.append(f"{path} is {value!r}; it may be {' or '.join(map(repr, choices))}")
    for path, least in _MINIMUM.items():
        value = _lookup(config, path)
        if value < least:
            problems.append(f"{path} is {value}; the least is {least}")
    if not config.optim.lr > 0:
        problems.append(f"optim.lr is {config.optim.lr}; it must be positive")
    size = tuple(config.data.image_size)
    whole = len(size) == 2 and all(isinstance(side, int) for side in size)
    if not whole or (min(size) < 32 and size != (0, 0)):
        problems.append(f"data.image_size is {size}; give (height, width) of at least 32, or (0, 0) for the default")
    train = config.train
    if train.accumulate > 0 and train.batch_size % train.accumulate:
        problems.append(
            f"train.accumulate is {train.accumulate}, which does not divide train.batch_size, "
            f"{train.batch_size}; the micro-batches must be equal"
        )
    elif min(train.accumulate, train.batch_norm_groups) > 0:
        images = train.batch_size // train.accumulate
        if images % train.batch_norm_groups:
            problems.append(
                f"train.batch_norm_groups is {train.batch_norm_groups}, which does not divide train.batch_size / "
                f"train.accumulate, {images}; the groups must be equal"
            )
    if config.balancing != PLAIN_BALANCING and train.accumulate > 1:
        problems.append(
            f"balancing is {config.balancing!r} and train.accumulate {train.accumulate}; gradients are balanced over "
            "whole batches alone: use model.remat to save memory"
        )
    if config.train.seed >= 2**32:
        problems.append(f"train.seed is {config.train.seed}; it must be below 2^32")
    if config.optim.schedule == "step" and not config.optim.decay_epochs:
        problems.append("optim.schedule is 'step' and optim.decay_epochs is empty; name epochs, for example (30, 60)")
    if not config.data.tasks:
        problems.append("data.tasks is empty; name at least one task, for example ('semseg', 'depth')")
    try:
        num_channels(config, all_tasks(config))
    except ValueError as error:
        problems.append(f"data.tasks / data.aux_tasks: {error}")
    if problems:
        raise ValueError("the configuration does not work: " + "; ".join(problems))
    return config


def parse_arg(arg: str | None, **options: str | tuple[str, ...]) -> SimpleNamespace:
    """The part after the colon of `--config file.py:key=value,key=value`, over the defaults a file offers.

    Args:
        options: {key: default}, or {key: (default, another value, ...)} where no other values make sense.

    Raises:
        ValueError: a key the file does not offer, a value that makes no sense, or an entry without "=".
    """
    choices = {key: option for key, option in options.items() if isinstance(option, tuple)}
    values = {key: option[0] if isinstance(option, tuple) else option for key, option in options.items()}
    for entry in filter(None, (arg or "").split(",")):
        key, separator, value = entry.partition("=")
        if not separator or key not in options:
            offered = ", ".join(f"{k}={'|'.join(choices.get(k, (v,)))}" for k, v in values.items()) or "none"
            raise ValueError(f"--config argument {entry!r} is not one of this file's options ({offered})")
        if value not in choices.get(key, (value,)):
            raise ValueError(f"--config argument {key} is {value!r}; it may be {' or '.join(map(repr, choices[key]))}")
        values[key] = value
    return SimpleNamespace(**values)


def for_backbone(backbone: str, **recipes: Recipe) -> Recipe:
    """What a recipe prescribes for a backbone.

    Recipes are published for one backbone of a family; the others of the family take the same.

    Args:
        recipes: {family: what holds for it}; a backbone's name begins with its family, as in hrnet_w18.

    Raises:
        ValueError: a backbone of no such family.
    """
    for family, recipe in recipes.items():
        if backbone.startswith(family):
            return recipe
    families = " or ".join(map(repr, recipes))
    raise ValueError(f"there is no recipe for backbone {backbone!r}; give one whose name begins with {families}")


def to_json(config: Config) -> str:
    """The configuration as it is stored beside a checkpoint."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(text: str, source: str) -> Config:
    """The inverse of `to_json`, also of an older version's.

    Fields that the file lacks take their defaults: whatever is added later, its default is what was done before.

    Args:
        source: name of the file, for errors.

    Raises:
        ValueError: no JSON object, or fields this version does not know.
    """
    try:
        content = json.loads(text)
        for upgrade in _UPGRADES:
            upgrade(content)
        return _build(Config, content, "")
    except (json.JSONDecodeError, TypeError, ValueError) as error:
        raise ValueError(f"{source} is not a configuration of this version of mtl_jax: {error}") from error


def _move_model_options(content: Any) -> None:
    """Moves the options of cross-stitch networks and NDDR-CNN, which were fields of `model`, into `model.options`."""
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict):
        return
    names = ("alpha", "beta", "init_single_task", "single_task")
    moved = {name: model.pop(name) for name in names if name in model}
    if moved and model.get("name") in ("cross_stitch", "nddr_cnn"):
        model["options"] = moved | model.get("options", {})


# Each rewrites, in place, what older versions stored under other names.
_UPGRADES: tuple[Callable[[Any], None], ...] = (_move_model_options,)


def _build(cls: Any, values: Any, prefix: str) -> Any:
    if not isinstance(values, dict):
        raise ValueError(f"{prefix.rstrip('.') or 'the file'} holds {values!r} in place of fields")
    known = {f.name: f for f in dataclasses.fields(cls)}
    if lost := [name for name, f in known.items() if dataclasses.is_dataclass(f.type) and name not in values]:
        raise ValueError(f"missing sections {', '.join(lost)}")
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"unknown fields {', '.join(prefix + name for name in unknown)}")
    kwargs = {}
    for name, value in values.items():
        kind = known[name].type
        if dataclasses.is_dataclass(kind):
            value = _build(kind, value, f"{prefix}{name}.")
        elif isinstance(value, list):
            value = tuple(value)
        elif isinstance(value, dict):
            value = {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}
        kwargs[name] = value
    return cls(**kwargs)


def _lookup(config: Config, path: str) -> Any:
    section, name = path.split(".")
    return getattr(getattr(config, section), name)
