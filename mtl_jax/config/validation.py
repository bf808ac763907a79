"""The check of a finished configuration."""

from collections.abc import Iterator

from mtl_jax import field_values
from mtl_jax import losses as loss_table
from mtl_jax.config.queries import all_tasks, num_channels
from mtl_jax.config.rules import fields
from mtl_jax.config.sections import EMA, PLAIN_BALANCING, Config
from mtl_jax.data.label_fraction import EVERY_TASK


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


def _size_problems(config: Config) -> Iterator[str]:
    size = tuple(config.data.image_size)
    whole = len(size) == 2 and all(isinstance(side, int) for side in size)
    if not whole or (min(size) < 32 and size != (0, 0)):
        yield f"data.image_size is {size}; give (height, width) of at least 32, or (0, 0) for the default"


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
    if config.balancing != PLAIN_BALANCING and train.accumulate > 1:
        yield (
            f"balancing is {config.balancing!r} and train.accumulate {train.accumulate}; only the gradients of whole "
            "batches can be balanced: use model.remat to save memory"
        )


def _optim_problems(config: Config) -> Iterator[str]:
    if config.optim.schedule == "step" and not config.optim.decay_epochs:
        yield "optim.schedule is 'step' and optim.decay_epochs is empty; name epochs, for example (30, 60)"


def _ema_problems(config: Config) -> Iterator[str]:
    train = config.train
    if train.ema >= 1:
        yield f"train.ema is {train.ema}; it must be below 1, for example 0.999"
    needing = {"train.ema_warmup": train.ema_warmup, "train.eval_weights": train.eval_weights == EMA}
    for name in (name for name, needs in needing.items() if needs and not train.ema):
        yield f"{name} asks for averaged weights and train.ema is 0; give the decay of the average, for example 0.999"


def _pretrained_problems(config: Config) -> Iterator[str]:
    model = config.model
    for name, part in (("entry", model.pretrained_entry), ("prefix", model.pretrained_prefix)):
        if part and not model.pretrained:
            yield f"model.pretrained_{name} is {part!r} and model.pretrained is empty; give the path of a file"


def _task_problems(config: Config) -> Iterator[str]:
    if not config.data.tasks:
        yield "data.tasks is empty; name at least one task, for example ('semseg', 'depth')"
    try:
        num_channels(config, all_tasks(config))
        yield from _loss_problems(config)
        yield from _label_problems(config)
    except ValueError as error:
        yield f"data.tasks / data.aux_tasks: {error}"


def _label_problems(config: Config) -> Iterator[str]:
    """Yields what is wrong with `data.label_fraction`."""
    trained = all_tasks(config)
    for task, fraction in config.data.label_fraction.items():
        if task not in (*trained, EVERY_TASK):
            known = ", ".join((*trained, EVERY_TASK))
            yield f"data.label_fraction names {task}; the tasks of this configuration are {known}"
        if not 0 < fraction <= 1:
            yield f"data.label_fraction has {fraction} for {task}; give a number above 0 and at most 1"


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


_CHECKS = (
    _rule_problems,
    _size_problems,
    _batch_problems,
    _optim_problems,
    _ema_problems,
    _pretrained_problems,
    _task_problems,
)
