"""The losses by name, the kinds of labels that each of them fits, and the bounds of their arguments."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import jax

from mtl_jax.labels import LabelKind
from mtl_jax.registry import Registry, did_you_mean

Function = TypeVar("Function", bound=Callable[..., jax.Array])
Bounds = Mapping[str, tuple[float, float]]

LOSSES: Registry[Callable[..., jax.Array]] = Registry("loss", "losses", "mtl_jax.losses.register")
# {short name: names of the losses that it stands for}; the kind of a task's labels decides which of them is meant.
SHORT_NAMES: dict[str, tuple[str, ...]] = {}
_KINDS: dict[str, tuple[type[LabelKind], ...]] = {}
_BOUNDS: dict[str, Bounds] = {}


def register(
    name: str, *, kinds: tuple[type[LabelKind], ...] | None = None, short: str = "", bounds: Bounds | None = None
) -> Callable[[Function], Function]:
    """Returns a decorator that registers a loss, which tasks and the configuration's `losses` then may name::

        @losses.register("depth_huber", kinds=(RealValues,), bounds={"delta": (0, math.inf)})
        def depth_huber(prediction, label, delta: float = 1.0, *, counts=None):
            errors = optax.losses.huber_loss(prediction, label, delta)
            return losses.masked_mean(errors, label != tasks.IGNORE, counts)

    makes `--losses.depth=depth_huber:delta=0.5` possible.

    A loss is called as `loss(prediction, label, counts=counts)` with logits `[B, H, W, C]` in float32 at least, a
    delivered label `[B, H, W, C']` of the same size, and the `LabelCounts` of the whole batch where these images are a
    part of it, else None. It returns a scalar. Its other parameters are arguments that the configuration may give; they
    have type annotations and defaults, see `mtl_jax.notation`.

    Args:
        name: Name of the loss.
        kinds: Kinds of labels that the loss fits, subclasses of them included. None means every kind.
        short: Short name. Losses for different kinds of labels may share one.
        bounds: {argument: (least value, greatest value)}.

    Raises:
        ValueError: The name is taken, or it is a short name of other losses.
    """
    if name in SHORT_NAMES:
        raise ValueError(f"{name!r} is the short name of {' and '.join(SHORT_NAMES[name])}; give your loss another one")
    if short in LOSSES:
        raise ValueError(f"there is a loss {short!r} already; give {name} another short name")

    def add(function: Function) -> Function:
        LOSSES.register(name, function)
        _KINDS[name] = (LabelKind,) if kinds is None else kinds
        _BOUNDS[name] = {} if bounds is None else bounds
        if short:
            SHORT_NAMES[short] = tuple(dict.fromkeys((*SHORT_NAMES.get(short, ()), name)))
        return function

    return add


def find(name: str, kind: LabelKind) -> str:
    """Returns the name in `LOSSES` that a name or a short name stands for, where labels are of this kind.

    Raises:
        ValueError: There is no such loss, or it does not fit such labels.
    """
    if name not in LOSSES and name not in SHORT_NAMES:
        hint = did_you_mean(name, (*SHORT_NAMES, *LOSSES), after=" ")
        raise ValueError(
            f"unknown loss {name!r}; the losses that fit this task are {', '.join(fitting(kind))}. {hint}"
            "mtl_jax.losses.register adds one, in a module that the configuration names in `imports`"
        )
    for candidate in SHORT_NAMES.get(name, (name,)):
        if fits(candidate, kind):
            return candidate
    wanted = dict.fromkeys(each.__name__ for known in SHORT_NAMES.get(name, (name,)) for each in kinds_of(known))
    raise ValueError(
        f"the loss {name!r} is for labels of the kind {' or '.join(wanted)}, those of this task are "
        f"{type(kind).__name__}; the losses that fit are {', '.join(fitting(kind))}"
    )


def fits(name: str, kind: LabelKind) -> bool:
    """Returns True if a loss of `LOSSES` fits labels of this kind."""
    return isinstance(kind, kinds_of(name))


def fitting(kind: LabelKind) -> tuple[str, ...]:
    """Returns the losses that fit labels of this kind, by their short names where they have one."""
    return tuple(dict.fromkeys(short_name(name) or name for name in LOSSES if fits(name, kind)))


def kinds_of(name: str) -> tuple[type[LabelKind], ...]:
    """Returns the kinds of labels that a loss of `LOSSES` fits."""
    return _KINDS.get(name, (LabelKind,))


def bounds_of(name: str) -> Bounds:
    """Returns {argument: (least value, greatest value)} of a loss of `LOSSES`."""
    return _BOUNDS.get(name, {})


def short_name(name: str) -> str:
    """Returns the short name of a loss of `LOSSES`, "" if it has none."""
    return next((short for short, names in SHORT_NAMES.items() if name in names), "")
