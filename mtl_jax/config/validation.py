"""The check of a finished configuration."""

import math
from collections.abc import Callable, Iterator, Mapping

from mtl_jax import field_values, heads, optim
from mtl_jax import losses as loss_table
from mtl_jax import tasks as task_table
from mtl_jax.config.queries import all_tasks, num_channels
from mtl_jax.config.rules import fields
from mtl_jax.config.sections import EMA, PLAIN_BALANCING, Config
from mtl_jax.data import augmentation
from mtl_jax.data.label_fraction import EVERY_TASK
from mtl_jax.labels import RealValues


def validate(config: Config) -> Config:
    """Returns the configuration itself, once every field makes sense.

    Raises:
        ValueError: A field has a value that does not work. The message lists all such fields with the values they have
            and may have.
    """
    problems = [problem for check in _CHECKS for problem in check(config)]
    if problems:
        raise ValueError("the configuration does not work: " + "; ".join(problems))
    return config


def _rule_problems(config: Config) -> Iterator[str]:
    """Yields what is wrong with single fields by their rules."""
    for name, value, rules in fields(config):
        yield from rules.problems(name, value, config)
    for name, value, _ in fields(config):
        if not field_values.finite(value):
            yield f"{name} is {value!r}; numbers must be finite"
    values = {name: value for name, value, _ in fields(config)}
    for name, value, rules in fields(config):
        other = rules.instead_of
        if value and other and name < other and values[other]:
            yield f"{name} is {value} and {other} {values[other]}; give one of the two, and set the other to 0"


def _size_problems(config: Config) -> Iterator[str]:
    size = tuple(config.data.image_size)
    whole = len(size) == 2 and all(isinstance(side, int) for side in size)
    if not whole or (min(size) < 32 and size != (0, 0)):
        yield f"data.image_size is {size}; give (height, width) of at least 32, or (0, 0) for the default"


def _augmentation_problems(config: Config) -> Iterator[str]:
    if config.data.augmentation:
        try:
            augmentation.get_recipe(config.data.augmentation)
        except ValueError as error:
            yield f"data.augmentation: {error}"


def _length_problems(config: Config) -> Iterator[str]:
    if not config.train.epochs and not config.train.steps:
        yield "train.epochs and train.steps are both 0; the length of the run is one of them"


def _batch_problems(config: Config) -> Iterator[str]:
    """Yields what is wrong with the parts into which a batch is split."""
    train = config.train
    if train.accumulate > 0 and train.batch_size % train.accumulate:
        yield (
            f"train.accumulate is {train.accumulate}, which does not divide train.batch_size, "
            f"{train.batch_size}; the micro-batches must be equal"
        )
    elif min(train.accumulate, train.batch_norm_groups) > 0:
        images = train.batch_size // train.accumulate
        if images % train.batch_norm_groups:
            yield (
                f"train.batch_norm_groups is {train.batch_norm_groups}, which does not divide train.batch_size / "
                f"train.accumulate, {images}; the groups must be equal"
            )


def _schedule_problems(config: Config) -> Iterator[str]:
    """Yields what is wrong with the schedule of the learning rate and its warm-up."""
    given = config.optim
    needed = {"epoch": ("decay_epochs", (30, 60)), "step": ("decay_steps", (20000, 30000))}
    for unit, (name, example) in needed.items():
        used = given.schedule == "step" and given.schedule_by == unit
        if used and not getattr(given, name):
            yield (
                f"optim.schedule is 'step' and optim.{name} is empty; name {unit}s, for example {example}, or choose "
                "the unit by optim.schedule_by"
            )
    if given.decay_steps and not (given.schedule == "step" and given.schedule_by == "step"):
        yield (
            f"optim.decay_steps is {given.decay_steps}, optim.schedule {given.schedule!r} and optim.schedule_by "
            f"{given.schedule_by!r}; decay_steps needs schedule='step' and schedule_by='step'"
        )
    if given.min_lr >= given.lr > 0:
        yield f"optim.min_lr is {given.min_lr} and optim.lr {given.lr}; min_lr must be below lr"
    if given.min_lr and given.schedule == "constant":
        yield f"optim.min_lr is {given.min_lr} and optim.schedule 'constant', which does not fall; set min_lr to 0"
    train = config.train
    for name, warmup, length in (
        ("steps", given.warmup_steps, train.steps),
        ("epochs", given.warmup_epochs, train.epochs),
    ):
        if length and warmup >= length:
            yield (
                f"optim.warmup_{name} is {warmup} and train.{name} {length}; the warm-up must end before the run does"
            )


def length_problems(config: Config, steps_per_epoch: int = 0) -> Iterator[str]:
    """Yields what is wrong with fields that depend on the length of the run.

    Args:
        config: The configuration.
        steps_per_epoch: Number of steps of an epoch; 0 = not known, and steps are not compared with epochs.
    """
    yield from _decay_problems(config, steps_per_epoch)
    yield from _patience_problems(config, steps_per_epoch)


def _decay_problems(config: Config, steps_per_epoch: int) -> Iterator[str]:
    """Yields what is wrong with a schedule "step" that decays within the warm-up."""
    given = config.optim
    if given.schedule_by == "step":
        name, decays, least = "decay_steps", given.decay_steps, 1  # the first step with the smaller rate
        least += given.warmup_steps or given.warmup_epochs * steps_per_epoch
    else:
        name, decays, least = "decay_epochs", given.decay_epochs, given.warmup_epochs  # the last one with the larger
        least += given.warmup_steps // steps_per_epoch if steps_per_epoch else 0
    warmup = "warmup_steps" if given.warmup_steps else "warmup_epochs"
    if given.schedule == "step" and getattr(given, warmup) and any(decay < least for decay in decays):
        yield (
            f"optim.{name} is {decays} and optim.{warmup} {getattr(given, warmup)}; a decay within the warm-up would "
            f"lower all of it, so the least of optim.{name} is {least}"
        )


def _patience_problems(config: Config, steps_per_epoch: int) -> Iterator[str]:
    """Yields what is wrong with a patience that never ends the run early."""
    train = config.train
    if train.eval_every > 0:
        evaluations = math.ceil((train.steps or train.epochs * steps_per_epoch) / train.eval_every)
    else:
        epochs = train.epochs or (math.ceil(train.steps / steps_per_epoch) if steps_per_epoch else 0)
        evaluations = min(filter(None, (epochs, train.eval_final_epochs)), default=0)
    most = evaluations - 2  # besides the best one, and the one at the end of the run
    if evaluations and train.patience > max(most, 0):
        yield (
            f"train.patience is {train.patience} and the run has at most {evaluations} evaluations, the last one at "
            f"its end, so it never ends early; evaluate more often (train.eval_every, train.eval_final_epochs), or set "
            f"train.patience to {f'at most {most}' if most > 0 else 0}"
        )


def _optim_problems(config: Config) -> Iterator[str]:
    """Yields what is wrong with the optimiser and the rates of parts."""
    for part, factor in config.optim.multipliers.items():
        if factor < 0:
            yield f"optim.multipliers has {factor} for {part}; the least is 0"
    if config.optim.name in optim.OPTIMIZERS:
        try:
            optim.optimizer_options(config.optim.name, config.optim.options, config.optim.momentum)
        except ValueError as error:
            yield str(error)


def _ema_problems(config: Config) -> Iterator[str]:
    train = config.train
    needing = {"train.ema_warmup": train.ema_warmup, "train.eval_weights": train.eval_weights == EMA}
    for name in (name for name, needs in needing.items() if needs and not train.ema):
        yield f"{name} asks for averaged weights and train.ema is 0; give the decay of the average, for example 0.999"


def _pretrained_problems(config: Config) -> Iterator[str]:
    model = config.model
    for name, part in (("entry", model.pretrained_entry), ("prefix", model.pretrained_prefix)):
        if part and not model.pretrained:
            yield f"model.pretrained_{name} is {part!r} and model.pretrained is empty; give the path of a file"


def _head_problems(config: Config) -> Iterator[str]:
    """Yields what is wrong with the heads, and with the regression of values."""
    model, tasks = config.model, config.data.tasks
    for name, chosen in (("model.heads", model.heads), ("model.regression", model.regression)):
        if unknown := [task for task in chosen if task not in tasks]:
            yield f"{name} names {', '.join(unknown)}; the main tasks of this configuration are {', '.join(tasks)}"
    given: list[tuple[str, str, Callable[[str], None]]] = [("model.head", model.head, heads.check)]
    given += [(f"model.heads.{task}", text, heads.check) for task, text in model.heads.items()]
    given += [(f"model.regression.{task}", text, heads.check_regression) for task, text in model.regression.items()]
    for name, text, check in given:
        try:
            check(text)
        except ValueError as error:
            yield f"{name} is {text!r}: {error}"
    for task in filter(model.regression.get, tasks):
        if not isinstance(task_table.get(task).kind, RealValues):
            yield f"model.regression names {task}, whose labels are no real values; leave it out"


def _task_problems(config: Config) -> Iterator[str]:
    if not config.data.tasks:
        yield "data.tasks is empty; name at least one task, for example ('semseg', 'depth')"
    try:
        channels = num_channels(config, all_tasks(config))
    except ValueError as error:
        yield f"data.tasks / data.aux_tasks: {error}"
    else:
        yield from _loss_problems(config, channels)
        yield from _label_problems(config)
        yield from _head_problems(config)


def _label_problems(config: Config) -> Iterator[str]:
    """Yields what is wrong with `data.label_fraction`."""
    trained = all_tasks(config)
    for task, fraction in config.data.label_fraction.items():
        if task not in (*trained, EVERY_TASK):
            known = ", ".join((*trained, EVERY_TASK))
            yield f"data.label_fraction names {task}; the tasks of this configuration are {known}"
        if not 0 < fraction <= 1:
            yield f"data.label_fraction has {fraction} for {task}; give a number above 0 and at most 1"


def _loss_problems(config: Config, channels: Mapping[str, int]) -> Iterator[str]:
    """Yields what is wrong with `losses` and `loss_weights`.

    Args:
        config: The configuration.
        channels: {task: number of logit channels} of all its tasks.
    """
    trained = tuple(channels)
    for name, given in (("losses", config.losses), ("loss_weights", config.loss_weights)):
        if "all" in given:  # the command line makes this of a number
            yield f"{name} takes no number for all tasks; write --{name}.TASK=VALUE"
        elif unknown := [task for task in given if task not in trained]:
            yield f"{name} names {', '.join(unknown)}; the tasks of this configuration are {', '.join(trained)}"
    for task, loss in config.losses.items():
        try:
            if task in channels:
                loss_table.check(loss, task, channels[task])
        except ValueError as error:
            yield f"losses.{task} is {loss!r}: {error}"
    for task, weight in config.loss_weights.items():
        if weight < 0:
            yield f"loss_weights has {weight} for {task}; the least is 0"
    if config.loss_weights and config.balancing != PLAIN_BALANCING:
        yield (
            f"loss_weights is given and balancing is {config.balancing!r}, which weights the losses itself; leave out "
            f"loss_weights, or choose balancing={PLAIN_BALANCING!r}"
        )


_CHECKS = (
    _rule_problems,
    _size_problems,
    _length_problems,
    _augmentation_problems,
    _batch_problems,
    _optim_problems,
    _schedule_problems,
    length_problems,
    _ema_problems,
    _pretrained_problems,
    _task_problems,
)
