"""The configuration of an experiment as plain typed dataclasses; files in configs/ import nothing else of the package.

Fields can be overridden on the command line (`--optim.lr=3e-4`). Overrides assign to the fields, so the
dataclasses are mutable and no field is derived from another before all overrides are in. Beside its default every field
has its rules (`Rules`): the values it may take, and whether a run may go on with another value. `validate` checks the
finished configuration.
"""

import dataclasses
import functools
import json
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeVar

from mtl_jax import field_values
from mtl_jax import losses as loss_table
from mtl_jax import optim as optim_table
from mtl_jax import tasks as task_table
from mtl_jax.data import catalogue, transforms
from mtl_jax.metrics import depth
from mtl_jax.protocol import PROTOCOLS

Recipe = TypeVar("Recipe")
logger = logging.getLogger(__name__)

_OF_A_HOST = ("data.data_dir", "data.manual_dir", "data.num_workers")
_RULES = "rules"  # key of a field's `Rules` in its metadata


@dataclass(frozen=True)
class Rules:
    """The rules of one field.

    Attributes:
        choices: The values allowed, or a function from the configuration to them; None allows any value.
        least: The smallest value allowed.
        positive: Only values above 0 are allowed.
        bits: Only values below 2^bits are allowed.
        may_change: A run may continue with another value of the field.
        same_experiment: Runs that differ only here are runs of one experiment, and share a line of a report.
    """

    choices: "Collection[str] | Callable[[Config], Collection[str]] | None" = None
    least: float | None = None
    positive: bool = False
    bits: int | None = None
    may_change: bool = False
    same_experiment: bool = False

    def problems(self, name: str, value: Any, config: "Config") -> Iterator[str]:
        """Yields what is wrong with a field's value."""
        choices = self.choices(config) if callable(self.choices) else self.choices
        if choices is not None and value not in choices:
            yield f"{name} is {value!r}; it may be {' or '.join(map(repr, choices))}"
        if self.least is not None and value < self.least:
            yield f"{name} is {value}; the least is {self.least}"
        if self.positive and not value > 0:
            yield f"{name} is {value}; it must be positive"
        if self.bits is not None and value >= 2**self.bits:
            yield f"{name} is {value}; it must be below 2^{self.bits}"


def option(
    default: Any,
    *,
    choices: "Collection[str] | Callable[[Config], Collection[str]] | None" = None,
    least: float | None = None,
    positive: bool = False,
    bits: int | None = None,
    may_change: bool = False,
    same_experiment: bool = False,
) -> Any:
    """Returns a dataclass field with rules.

    Args:
        default: Default of the field.
        choices, least, positive, bits, may_change, same_experiment: Attributes of `Rules`.
    """
    rules = Rules(choices, least, positive, bits, may_change, same_experiment)
    return field(default=default, metadata={_RULES: rules})


def _releases(config: "Config") -> Collection[str]:
    """Returns the releases of the data set; of an unknown data set, which is another problem, any."""
    name = config.data.dataset
    return catalogue.get(name).recipes if name in catalogue.DATASETS else (config.data.release,)


@dataclass
class Data:
    """The images, and the tasks that are learned from them.

    Attributes:
        dataset: Data set, which sets label conventions and resolution: a key of `mtl_jax.data.DATASETS`, for example
            nyud, pascal, or folder for a folder of your own.
        tasks: Main tasks.
        aux_tasks: Tasks supervised at the intermediate predictions of PAD-Net and MTI-Net; empty = the main tasks.
        release: Release of the data set: "astmt" or "survey".
        augmentation: Augmentation of the training images: a key of `mtl_jax.data.transforms.RECIPES`; empty = the
            release's own.
        builder: TFDS builder and its config; empty = the release's own, `rendered_scenes/nyud` = the embedded scenes.
        data_dir: Folder of the built data sets; empty = ~/tensorflow_datasets.
        manual_dir: Folder or archive with the original files, from which the data set is built; for `folder` the folder
            with your images and labels.
        image_size: (height, width) of network inputs in pixels; (0, 0) = the data set's resolution.
        border: Labels outside of a rotated image: "zero" (class 0, background) as in the published experiments, or
            "ignore"; empty means "zero" for NYUD and PASCAL, and "ignore" for other data.
        num_workers: Number of processes that read and transform images; 0 = none.
        skip_corrupt: Training replaces an image that cannot be read by another one and logs a warning. Evaluation needs
            every image.
        class_names: {task: names of its classes} of a folder of your own; filled in from the folder's description.
        axes: Axes of the normals, see `mtl_jax.labels.axes`; empty = those that the data set declares. For a folder of
            your own it is filled in from the folder's description.
        protocol: Older name of `release`. A value given here is moved to `release`, with a note in the log.
    """

    dataset: str = "nyud"
    tasks: tuple[str, ...] = ()
    aux_tasks: tuple[str, ...] = ()
    release: str = option("astmt", choices=_releases)
    augmentation: str = option("", choices=("", *transforms.RECIPES))
    builder: str = ""
    data_dir: str = option("", may_change=True, same_experiment=True)
    manual_dir: str = option("", may_change=True, same_experiment=True)
    image_size: tuple[int, int] = (0, 0)
    border: str = option("", choices=("", *transforms.BORDERS))
    num_workers: int = option(4, least=0, may_change=True, same_experiment=True)
    skip_corrupt: bool = option(False, may_change=True)
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    axes: str = ""
    protocol: str = ""


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
        pretrained_entry: Entry of the file `pretrained` that holds the weights, if the file is a training checkpoint
            with several: "state_dict_ema" for example. Empty = the only one, or the plain weights beside averaged ones.
        pretrained_prefix: Beginning of the backbone's names in the file, "encoder_q." for example. Arrays whose names
            begin otherwise are left out. Empty = the prefix that fits, if any.
        options: Options of this model alone, {name: value}. The class of a model's options lists them:
            `mtl_jax.models.SoftSharingOptions` for cross_stitch and nddr_cnn; the other models have none. The command
            line sets one by its name: `--model.options.alpha=0.8`.
        remat: Names of the stages whose activations are recomputed in the backward pass instead of being stored. That
            saves memory on a GPU, none on a CPU, and costs up to one more forward pass. The stages are those of the
            backbone (conv, layer1, stage2, ...), heads, scale_0 to scale_3 of MTI-Net, fusion, initial_predictions and
            distillation of PAD-Net, and attention_1 to attention_4 of MTAN.
        dtype: Computation dtype, "float32" or "bfloat16"; parameters, statistics and losses stay float32.
    """

    name: str = "mti_net"
    backbone: str = "hrnet_w18"
    head: str = ""
    pretrained: str = option("", may_change=True)
    pretrained_entry: str = option("", may_change=True)
    pretrained_prefix: str = option("", may_change=True)
    # The rules of each option stand beside it, in the class of the model's options.
    options: dict[str, Any] = field(
        default_factory=dict, metadata={_RULES: Rules(may_change=True, same_experiment=True)}
    )
    remat: tuple[str, ...] = option((), may_change=True)
    dtype: str = option("float32", choices=("float32", "bfloat16"))


@dataclass
class Optim:
    """Optimiser with torch's semantics: the weight decay is added to the gradient.

    Attributes:
        name: Optimiser, a key of `mtl_jax.optim.OPTIMIZERS`: "adam" or "sgd".
        lr: Learning rate of epoch 0.
        weight_decay: Coupled L2 coefficient, applied to every parameter.
        momentum: Momentum of "sgd".
        schedule: Schedule of the learning rate, a key of `mtl_jax.optim.SCHEDULES`: "poly"
            (lr * (1 - epoch / epochs) ** 0.9), "step" or "constant".
        decay_epochs: Epochs of "step": each epoch after one of these multiplies the rate by `decay_rate` once.
        decay_rate: Factor of "step".
        fusion_lr_multiplier: Factor on the learning rate of the parameters that exchange features between tasks in
            cross-stitch and NDDR-CNN.
    """

    name: str = option("adam", choices=optim_table.OPTIMIZERS)
    lr: float = option(1e-4, positive=True)
    weight_decay: float = option(1e-4, least=0)
    momentum: float = option(0.9, least=0)
    schedule: str = option("poly", choices=optim_table.SCHEDULES)
    decay_epochs: tuple[int, ...] = ()
    decay_rate: float = option(0.1, least=0)
    fusion_lr_multiplier: float = option(100.0, least=0)


@dataclass
class Train:
    """The training run.

    Attributes:
        batch_size: Global batch size of an optimiser step, over all devices of all processes.
        accumulate: Number of micro-batches that a batch is split into. They are computed one after the other, to save
            memory. Losses and gradients stay those of the whole batch, with two exceptions: batch norm normalises every
            micro-batch with its own statistics, and the dropout masks differ.
        batch_norm_groups: Number of equal parts of the batch, or of each micro-batch, that batch norm normalises with
            their own statistics, as the devices of torch's DataParallel, and of DistributedDataParallel without
            SyncBatchNorm, do. The first part moves the running statistics. 1 = statistics of the whole batch, over all
            devices.
        split_state: Large arrays of parameters and optimiser are split over the devices, and gathered for a step: less
            memory for more communication (ZeRO, arXiv 1910.02054). Otherwise every device holds all of them.
        epochs: Number of passes over the training split.
        seed: Seed of the initial weights, the order of the images, the augmentation and dropout.
        eval_final_epochs: Number of last epochs that are each followed by an evaluation; 0 = all epochs are.
        eval_batch_size: Global batch size of evaluation; 0 = the training batch size.
        eval_protocol: Rules by which predictions are scored, a key of `mtl_jax.protocol.PROTOCOLS`: survey, astmt or
            invpt.
        depth_protocol: RMSE of depth: "image" (mean over the images of each image's RMSE) or "pixel" (over all
            pixels); "" = as `eval_protocol` says.
        log_every: Number of steps between two lines of the log.
        checkpoint_every: Number of steps between checkpoints, besides the one after every epoch; 0 = only that one.
    """

    batch_size: int = option(8, least=1)
    accumulate: int = option(1, least=1)
    batch_norm_groups: int = option(1, least=1)
    split_state: bool = option(False, may_change=True)
    epochs: int = option(100, least=1)
    seed: int = option(0, least=0, bits=32, same_experiment=True)
    eval_final_epochs: int = option(10, least=0)
    eval_batch_size: int = option(0, least=0)
    eval_protocol: str = option("survey", choices=PROTOCOLS)
    depth_protocol: str = option("", choices=("", *depth.PROTOCOLS))
    log_every: int = option(20, least=1, may_change=True, same_experiment=True)
    checkpoint_every: int = option(0, least=0, may_change=True, same_experiment=True)


PLAIN_BALANCING = "fixed"


@dataclass
class Config:
    """One experiment.

    Attributes:
        data: Images and tasks.
        model: Architecture.
        optim: Optimiser.
        train: Training run.
        balancing: Method that combines the tasks' losses or gradients: "fixed" for a weighted sum, or a method of
            `mtl_jax.balancing` with its parameters, as in "cagrad" and "dwa:temperature=2,window=100".
        losses: {task: name of its loss}, keys of `mtl_jax.losses.LOSSES`; other tasks have the loss of the task table.
            On the command line: `--losses.depth=depth_l1`.
        loss_weights: {task: weight of its loss in the sum}; other tasks have the weight of the task table, and the only
            task of a single-task model has the weight 1. On the command line: `--loss_weights.edge=50`.
        imports: Modules outside of the package that register tasks, losses, models or data sets. They are imported
            before names are looked up.
    """

    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    optim: Optim = field(default_factory=Optim)
    train: Train = field(default_factory=Train)
    balancing: str = PLAIN_BALANCING
    losses: dict[str, str] = field(default_factory=dict)
    loss_weights: dict[str, float] = field(default_factory=dict)
    imports: tuple[str, ...] = option((), may_change=True, same_experiment=True)


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
    """Returns (height, width) of network inputs in pixels; (0, 0) where a folder of one's own has yet to say it."""
    height, width = config.data.image_size
    return (height, width) if (height, width) != (0, 0) else catalogue.get(config.data.dataset).image_size


def fixed_on_resume(config: Config) -> dict[str, Any]:
    """Returns {"section.field": value} of the fields that must not change when a run continues.

    A field outside of a section is listed as {"field": value}.
    """
    return {name: value for name, value, rules in _fields(config) if not rules.may_change}


def identity(config: Config) -> dict[str, Any]:
    """Returns the fields that runs of one experiment share, in the form of `fixed_on_resume`.

    Such runs may differ in chance, places and speed: the seed, for example, or the number of worker processes.
    """
    return {name: value for name, value, rules in _fields(config) if not rules.same_experiment}


def shared_by_processes(config: Config) -> dict[str, Any]:
    """Returns {field: value} of all fields that the processes of one run share, options of the model included.

    Folders and numbers of worker processes may differ from host to host.
    """
    return {name: value for name, value, _ in _fields(config) if name not in _OF_A_HOST}


def _fields(part: Any, prefix: str = "") -> Iterator[tuple[str, Any, Rules]]:
    """Yields (name, value, rules) of all fields, those of the sections in place of the sections."""
    for each in dataclasses.fields(part):
        name, value = prefix + each.name, getattr(part, each.name)
        if dataclasses.is_dataclass(value):
            yield from _fields(value, f"{name}.")
        else:
            yield name, value, rules_of(each)


def rules_of(each: dataclasses.Field) -> Rules:
    """Returns the rules of a field that `option` made; a field without rules allows any value."""
    return each.metadata.get(_RULES, Rules())


def with_new_names(config: Config) -> Config:
    """Returns the configuration with values that were given under older names under the new ones."""
    data = config.data
    if not data.protocol:
        return config
    note_new_name("data.protocol", "data.release")
    return dataclasses.replace(config, data=dataclasses.replace(data, release=data.protocol, protocol=""))


@functools.cache
def note_new_name(older: str, new: str) -> None:
    """Logs, once in a process, that an option has a new name."""
    logger.warning("%s is called %s now; the older name still works", older, new)


def validate(config: Config) -> Config:
    """Returns the configuration itself, once every field makes sense.

    Raises:
        ValueError: A field has a value that does not work. The message lists all such fields with the values they have
            and may have.
    """
    problems = [each for name, value, rules in _fields(config) for each in rules.problems(name, value, config)]
    problems += [
        f"{name} is {value!r}; numbers must be finite"
        for name, value, _ in _fields(config)
        if not field_values.finite(value)
    ]
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
            f"balancing is {config.balancing!r} and train.accumulate {train.accumulate}; only the gradients of whole "
            "batches can be balanced: use model.remat to save memory"
        )
    if config.optim.schedule == "step" and not config.optim.decay_epochs:
        problems.append("optim.schedule is 'step' and optim.decay_epochs is empty; name epochs, for example (30, 60)")
    model = config.model
    for name, part in (("entry", model.pretrained_entry), ("prefix", model.pretrained_prefix)):
        if part and not model.pretrained:
            problems.append(
                f"model.pretrained_{name} is {part!r} and model.pretrained is empty; give the path of a file"
            )
    if not config.data.tasks:
        problems.append("data.tasks is empty; name at least one task, for example ('semseg', 'depth')")
    try:
        num_channels(config, all_tasks(config))
        problems += _loss_problems(config)
    except ValueError as error:
        problems.append(f"data.tasks / data.aux_tasks: {error}")
    if problems:
        raise ValueError("the configuration does not work: " + "; ".join(problems))
    return config


def _loss_problems(config: Config) -> Iterator[str]:
    """Yields what is wrong with `losses` and `loss_weights`."""
    trained = all_tasks(config)
    for name, given in (("losses", config.losses), ("loss_weights", config.loss_weights)):
        if unknown := [task for task in given if task not in trained]:
            yield f"{name} names {', '.join(unknown)}; the tasks of this configuration are {', '.join(trained)}"
    for task, loss in config.losses.items():
        if loss not in loss_table.LOSSES:
            yield f"losses has {loss!r} for {task}; the losses are {', '.join(loss_table.LOSSES)}"
    for task, weight in config.loss_weights.items():
        if weight < 0:
            yield f"loss_weights has {weight} for {task}; the least is 0"
    if config.loss_weights and config.balancing != PLAIN_BALANCING:
        yield (
            f"loss_weights is given and balancing is {config.balancing!r}, which weights the losses itself; leave out "
            f"loss_weights, or choose balancing={PLAIN_BALANCING!r}"
        )


def parse_arg(
    arg: str | None, *, aliases: Mapping[str, str] | None = None, **options: str | tuple[str, ...]
) -> SimpleNamespace:
    """Parses the part after the colon of `--config file.py:key=value,key=value`.

    A path may have commas: what follows a comma without "=" belongs to it.

    Args:
        arg: Text after the colon; None or empty = the defaults of all options.
        aliases: {older name of an option: its name}; a note in the log tells who uses the older name.
        options: {key: default}, or {key: (default, another value, ...)} where the option has no other values.

    Returns:
        A namespace with the value of every option.

    Raises:
        ValueError: The file has no such option, the option has no such value, or an entry has no "=".
    """
    aliases = aliases or {}
    choices = {key: option for key, option in options.items() if isinstance(option, tuple)}
    values = {key: option[0] if isinstance(option, tuple) else option for key, option in options.items()}
    previous = ""
    for entry in _entries(arg or ""):
        key, separator, value = entry.partition("=")
        if key in aliases:
            note_new_name(f"the option {key}=", f"{aliases[key]}=")
            key = aliases[key]
        if not separator or key not in options:
            offered = ", ".join(f"{k}={'|'.join(choices.get(k, (v,)))}" for k, v in values.items()) or "none"
            joined = "" if separator or not previous else f"; to give several values, write {previous}+{entry}"
            raise ValueError(f"option {entry!r} is not one of this recipe's ({offered}){joined}")
        previous = entry
        if value not in choices.get(key, (value,)):
            allowed = " or ".join(map(repr, choices[key]))
            raise ValueError(f"the option {key} of the recipe is {value!r}; it may be {allowed}")
        values[key] = value
    return SimpleNamespace(**values)


def _entries(arg: str) -> list[str]:
    entries: list[str] = []
    for part in arg.split(","):
        if entries and "=" not in part and "/" in entries[-1]:
            entries[-1] += f",{part}"
        else:
            entries.append(part)
    return [entry for entry in entries if entry]


def for_backbone(backbone: str, **recipes: Recipe) -> Recipe:
    """Returns the recipe for a backbone.

    Recipes are published for one backbone of a family; the other backbones of the family take the same recipe.

    Args:
        backbone: Name of the backbone. It begins with the name of its family, as in hrnet_w18.
        recipes: {family: its recipe}.

    Raises:
        ValueError: No family has this backbone.
    """
    for family, recipe in recipes.items():
        if backbone.startswith(family):
            return recipe
    families = " or ".join(map(repr, recipes))
    raise ValueError(f"there is no recipe for backbone {backbone!r}; give one whose name begins with {families}")


def to_json(config: Config) -> str:
    """Returns the text of the configuration that is stored beside checkpoints."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(text: str, source: str) -> Config:
    """Returns the configuration of a text that this or an older version's `to_json` returned.

    Fields that the text lacks take their defaults: the default of a field that is added later keeps the behaviour of
    the versions without the field.

    Args:
        text: The text.
        source: Name of the file with the text, for errors.

    Raises:
        ValueError: The text is no JSON object, has fields that this version does not know, or a field has a value of
            another type.
    """
    try:
        content = json.loads(text)
        for upgrade in _UPGRADES:
            upgrade(content)
        return _build(Config, content, "")
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{source} is not a configuration of this version of mtl_jax: {error}") from error


def _rename_protocol(content: Any) -> None:
    """Moves the value of `data.protocol`, the older name, to `data.release`."""
    data = content.get("data") if isinstance(content, dict) else None
    if isinstance(data, dict) and (release := data.pop("protocol", "")):
        note_new_name("data.protocol", "data.release")
        data["release"] = release


def _move_model_options(content: Any) -> None:
    """Moves the options of cross-stitch networks and NDDR-CNN, which were fields of `model`, into `model.options`."""
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict):
        return
    names = ("alpha", "beta", "init_single_task", "single_task")
    moved = {name: model.pop(name) for name in names if name in model}
    if moved and model.get("name") in ("cross_stitch", "nddr_cnn"):
        model["options"] = moved | model.get("options", {})


# Each function rewrites, in place, what older versions stored under other names.
_UPGRADES: tuple[Callable[[Any], None], ...] = (_rename_protocol, _move_model_options)


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
            kwargs[name] = _build(kind, value, f"{prefix}{name}.")
        elif field_values.has_type(value, kind):
            kwargs[name] = field_values.with_tuples(value)
        else:
            raise ValueError(f"{prefix}{name} is {json.dumps(value)}; expected {field_values.in_words(kind)}")
    return cls(**kwargs)
