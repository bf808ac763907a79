"""The table of optimisers, and an optimiser with its weight decay, clipping and learning rates."""

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import optax

from mtl_jax.optim.schedules import Schedule
from mtl_jax.optim.transforms import Mask, clip_by_norm, kernels, scale_parts
from mtl_jax.options import NoOptions
from mtl_jax.options import read as read_options
from mtl_jax.registry import Registry

ALL, KERNELS = "all", "kernels"
DECAYED = (ALL, KERNELS)  # what the weight decay may apply to


class OptimizerParts(NamedTuple):
    """The parts of an optimiser besides its options.

    Attributes:
        decay: Transformation that adds weight_decay * parameter to the updates. A decoupled optimiser uses it after its
            moments; for a coupled one it does nothing, because the decay is in the gradient already.
        kernels: Function from a pytree of parameters to one of truth values: True for kernels, False for biases, norms
            and position embeddings.
    """

    decay: optax.GradientTransformation
    kernels: Mask


@dataclass(frozen=True)
class Optimizer:
    """An entry of `OPTIMIZERS`.

    Attributes:
        make: Function from parts and options to a transformation from gradients to the direction of the step, which the
            learning rate multiplies and the parameters are moved against.
        options: Class of the options, a frozen dataclass.
        coupled: True if the weight decay is added to the gradient before the moments, False if it is added after.
        uses_kernels: False if `make` does not use `OptimizerParts.kernels`.
    """

    make: Callable[[OptimizerParts, Any], optax.GradientTransformation]
    options: type
    coupled: bool
    uses_kernels: bool = True


MakeFunction = TypeVar("MakeFunction", bound=Callable[[OptimizerParts, Any], optax.GradientTransformation])

OPTIMIZERS: Registry[Optimizer] = Registry("optimiser", "optimisers", "mtl_jax.optim.register_optimizer")


def register_optimizer(
    name: str, *, options: type = NoOptions, coupled: bool = False, uses_kernels: bool = True
) -> Callable[[MakeFunction], MakeFunction]:
    """Returns a decorator that registers an optimiser, which `optim.name` then may name::

        @dataclass(frozen=True)
        class RmsOptions:
            decay: float = 0.9

        @optim.register_optimizer("rms", options=RmsOptions)
        def rms(parts: optim.OptimizerParts, options: RmsOptions) -> optax.GradientTransformation:
            return optax.chain(optax.scale_by_rms(options.decay), parts.decay)

    The function knows neither learning rate nor sign: its result points along the gradient.

    Args:
        name: Name of the optimiser.
        options: A frozen dataclass whose fields, of type bool, int, float or str and with defaults, are what
            `optim.options` may hold. Its `__post_init__` may check values and raise a ValueError. A field `momentum`
            has the value of `optim.momentum`.
        coupled: True if the weight decay belongs to the gradient, as in torch's SGD and Adam. It then applies to every
            parameter by default. Otherwise it applies to kernels.
        uses_kernels: False if the function does not use `parts.kernels`. A run whose weight decay does not depend on
            kernels either then starts some seconds sooner, because it does not ask the model for them.

    Raises:
        ValueError: There is another optimiser of this name.
    """

    def add(make: MakeFunction) -> MakeFunction:
        OPTIMIZERS.register(name, Optimizer(make, options, coupled, uses_kernels))
        return make

    return add


def optimizer_options(name: str, given: Mapping[str, Any], momentum: float) -> Any:
    """Returns the options of an optimiser: the given ones over the defaults of its options class.

    Args:
        name: Key of `OPTIMIZERS`.
        given: {option: value}.
        momentum: Value of the option `momentum`, if the optimiser has one.

    Raises:
        ValueError: There is no such optimiser, it has no such option, or the value of an option is impossible.
    """
    kind = OPTIMIZERS[name].options
    if "momentum" in given:
        raise ValueError(f"optim.options.momentum is {given['momentum']!r}; set optim.momentum in its place")
    has_momentum = "momentum" in inspect.signature(kind).parameters
    every = {"momentum": momentum, **given} if has_momentum else given
    return read_options(kind, every, field="optim.options", owner=f"optimiser {name}")


def distinguishes_kernels(name: str, weight_decay_on: str) -> bool:
    """Returns True if an optimiser, or its weight decay, may treat kernels differently from other parameters.

    Args:
        name: Key of `OPTIMIZERS`.
        weight_decay_on: What decays, see `make_optimizer`.
    """
    entry = OPTIMIZERS[name]
    return entry.uses_kernels or _decayed(entry, weight_decay_on) == KERNELS


def _decayed(entry: Optimizer, weight_decay_on: str) -> str:
    """Returns what decays, "all" or "kernels"."""
    return weight_decay_on or (ALL if entry.coupled else KERNELS)


def make_optimizer(
    name: str,
    learning_rate: float | Schedule,
    *,
    weight_decay: float = 0.0,
    weight_decay_on: str = "",
    exempt: Collection[str] = (),
    momentum: float = 0.9,
    options: Mapping[str, Any] | None = None,
    clip_norm: float = 0.0,
    multipliers: Mapping[str, float] | None = None,
) -> optax.GradientTransformation:
    """Returns an optimiser.

    "adam", "adamw" and "sgd" compute what torch's optimisers of these names compute. The order is that of a training
    loop in torch: the gradient is clipped; a coupled weight decay is added to it; the optimiser makes a direction of
    it; a decoupled weight decay is added to the direction; the learning rate and the factor of the part multiply the
    sum, the decay included.

    Args:
        name: Key of `OPTIMIZERS`.
        learning_rate: Number, or function of the optimiser step.
        weight_decay: Coefficient of the weight decay, coupled or decoupled as the optimiser has it.
        weight_decay_on: What decays: "all" parameters, or "kernels" (no biases, norms and position embeddings). Empty
            means all for a coupled optimiser, and kernels for a decoupled one.
        exempt: Paths of parameters that are no kernels in spite of two or more axes, as "backbone.pos_embed".
        momentum: Momentum of an optimiser that has this option.
        options: {option: value} of the optimiser; other options have their defaults.
        clip_norm: Largest norm of the gradient of all parameters together, see `clip_by_norm`; 0 = no clipping.
        multipliers: {path of a submodule or parameter, as "backbone.layer1": factor on its learning rate}. The longest
            path that leads to a parameter counts.

    Raises:
        ValueError: There is no such optimiser or option (the message lists those that there are), or the value of an
            option or of `weight_decay_on` is impossible.
    """
    entry = OPTIMIZERS[name]
    if weight_decay_on not in ("", *DECAYED):
        raise ValueError(f"weight_decay_on is {weight_decay_on!r}; it may be {' or '.join(map(repr, DECAYED))}")
    on_kernels = _decayed(entry, weight_decay_on) == KERNELS
    decay = optax.add_decayed_weights(weight_decay, kernels(exempt) if on_kernels else None)
    parts = OptimizerParts(optax.identity() if entry.coupled else decay, kernels(exempt))
    clip = clip_by_norm(clip_norm) if clip_norm else optax.identity()
    direction = entry.make(parts, optimizer_options(name, options or {}, momentum))
    # The nesting decides the names of the arrays in checkpoints.
    return optax.chain(
        optax.chain(clip, decay if entry.coupled else optax.identity()),
        optax.chain(direction, optax.scale_by_learning_rate(learning_rate)),
        scale_parts(multipliers or {}),
    )
