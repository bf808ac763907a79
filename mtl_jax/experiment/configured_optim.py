"""The optimiser and the learning rates that a configuration describes."""

import math

import optax
from flax import nnx

from mtl_jax import models, optim
from mtl_jax.config import Config

# ({path of a part or parameter: factor on its learning rate}, paths of parameters that are no kernels)
ParameterGroups = tuple[dict[str, float], frozenset[str]]


def total_steps(config: Config, steps_per_epoch: int) -> int:
    """Returns the number of optimiser steps of a whole run."""
    return config.train.steps or config.train.epochs * steps_per_epoch


def warmup_steps(config: Config, steps_per_epoch: int) -> int:
    """Returns the number of optimiser steps of the warm-up."""
    return config.optim.warmup_steps or config.optim.warmup_epochs * steps_per_epoch


def learning_rate(config: Config, steps_per_epoch: int) -> optim.Schedule:
    """Returns the schedule optimiser step -> learning rate.

    The schedule begins after the warm-up and spans the rest of the run. By epochs, it begins with the epoch in which
    the warm-up ends.
    """
    options = config.optim
    by_step = options.schedule_by == "step"
    unit = 1 if by_step else steps_per_epoch
    warmup = warmup_steps(config, steps_per_epoch)
    begin = warmup // unit
    length = max(1, math.ceil(total_steps(config, steps_per_epoch) / unit) - begin)
    # A step is the first one with the smaller rate, as torch and optax have it; an epoch is the last one with the
    # larger rate, as the published experiments have it.
    decays = [number - 1 for number in options.decay_steps] if by_step else options.decay_epochs
    schedule = optim.make_schedule(
        options.schedule,
        options.lr,
        length,
        min_lr=options.min_lr,
        power=options.poly_power,
        decays=[number - begin for number in decays],
        decay_rate=options.decay_rate,
    )
    return optim.with_warmup(optim.over_steps(schedule, unit, length, begin), warmup, options.warmup_start)


def optimizer(config: Config, groups: ParameterGroups, rate: optim.Schedule) -> optax.GradientTransformation:
    """Returns the optimiser.

    Args:
        config: The configuration.
        groups: Result of `parameter_groups`.
        rate: Schedule optimiser step -> learning rate.
    """
    options = config.optim
    multipliers, not_decayed = groups
    return optim.make_optimizer(
        options.name,
        rate,
        weight_decay=options.weight_decay,
        weight_decay_on=options.weight_decay_on,
        exempt=not_decayed,
        momentum=options.momentum,
        options=options.options,
        clip_norm=options.clip_norm,
        multipliers=multipliers,
    )


def parameter_groups(config: Config) -> ParameterGroups:
    """Returns the factors on the learning rates of parts, and the parameters that are no kernels.

    Raises:
        ValueError: `optim.multipliers` names a part that the model does not have, or the backbone does not state the
            layers that `optim.layer_decay` needs.
    """
    options = config.optim
    multipliers = dict.fromkeys(models.fusions(config), options.fusion_lr_multiplier) | options.multipliers
    by_kernels = optim.distinguishes_kernels(options.name, options.weight_decay_on)
    if not options.multipliers and options.layer_decay == 1 and not by_kernels:
        return multipliers, frozenset()  # without the model, whose structure takes seconds
    model = nnx.eval_shape(lambda: models.build(config))
    factors = models.learning_rate_factors(model, multipliers, options.layer_decay)
    return {path: factor for path, factor in factors.items() if factor != 1}, models.not_decayed(model)
