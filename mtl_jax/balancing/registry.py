"""All methods by name, and methods from the command line."""

import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, Literal

from mtl_jax.balancing.aligned_mtl import aligned_mtl
from mtl_jax.balancing.average_norm import average_norm
from mtl_jax.balancing.cagrad import cagrad
from mtl_jax.balancing.core import Balancer
from mtl_jax.balancing.db_mtl import db_mtl
from mtl_jax.balancing.dtp import dtp
from mtl_jax.balancing.dwa import dwa
from mtl_jax.balancing.excess_mtl import excess_mtl
from mtl_jax.balancing.fairgrad import fairgrad
from mtl_jax.balancing.famo import famo
from mtl_jax.balancing.fixed import fixed
from mtl_jax.balancing.geometric import geometric
from mtl_jax.balancing.graddrop import graddrop
from mtl_jax.balancing.gradnorm import gradnorm
from mtl_jax.balancing.gradvac import gradvac
from mtl_jax.balancing.imtl_g import imtl_g
from mtl_jax.balancing.imtl_l import imtl_l
from mtl_jax.balancing.mgda import mgda, mgda_ub
from mtl_jax.balancing.nash_mtl import nash_mtl
from mtl_jax.balancing.pcgrad import pcgrad
from mtl_jax.balancing.rlw import rlw
from mtl_jax.balancing.stch import stch
from mtl_jax.balancing.uncertainty import uncertainty
from mtl_jax.balancing.upgrad import upgrad

_FACTORIES: tuple[Callable[..., Balancer], ...] = (
    # from the losses alone
    fixed,
    uncertainty,
    imtl_l,
    dwa,
    rlw,
    geometric,
    dtp,
    famo,
    stch,
    # from the gradients' inner products
    gradnorm,
    average_norm,
    mgda,
    mgda_ub,
    pcgrad,
    gradvac,
    cagrad,
    imtl_g,
    nash_mtl,
    fairgrad,
    aligned_mtl,
    upgrad,
    # from the gradients themselves
    graddrop,
    db_mtl,
    excess_mtl,
)
BALANCERS: dict[str, Callable[..., Balancer]] = {factory.__name__: factory for factory in _FACTORIES}

_WORDS: dict[Any, dict[str, Any]] = {bool: {"true": True, "false": False}, types.NoneType: {"none": None}}


def parse(text: str) -> Balancer:
    """A method as it is written on the command line: NAME or NAME:PARAMETER=VALUE,PARAMETER=VALUE.

    Values are numbers, true, false, none or words, as the parameter's annotation has it; several numbers are joined by
    "+", as in fixed:weights=1+10+50. Parameters that are functions can be given in Python only.

    Raises:
        ValueError: an unknown method or parameter, or a value of the wrong kind or range.
    """
    name, colon, rest = text.partition(":")
    if name not in BALANCERS:
        raise ValueError(f"there is no balancing method {name!r}; the methods are {', '.join(BALANCERS)}")
    parameters = _parameters(BALANCERS[name])
    values: dict[str, Any] = {}
    for entry in rest.split(",") if colon else ():
        key, equals, value = entry.partition("=")
        if not equals or key not in parameters:
            offered = ", ".join(f"{key}={default}" for key, (_, default) in parameters.items()) or "no parameters"
            raise ValueError(f"{entry!r} is no parameter=value of the balancing method {name}; it takes {offered}")
        if key in values:
            raise ValueError(f"parameter {key} of the balancing method {name} is given twice")
        kinds, _ = parameters[key]
        values[key] = _value(value, kinds, f"parameter {key} of the balancing method {name}")
    return BALANCERS[name](**values)


def _parameters(factory: Callable[..., Balancer]) -> dict[str, tuple[tuple[Any, ...], Any]]:
    """{parameter: (types it may have, default)} of those that can be written down."""
    hints = typing.get_type_hints(factory)
    parameters = {}
    for name, parameter in inspect.signature(factory).parameters.items():
        hint = hints[name]
        union = typing.get_origin(hint) in (typing.Union, types.UnionType)
        kinds = typing.get_args(hint) if union else (hint,)
        if any(_description(kind) for kind in kinds):
            parameters[name] = (kinds, parameter.default)
    return parameters


def _description(kind: Any) -> str:
    """What a value of a type looks like; empty where it cannot be written down."""
    if typing.get_origin(kind) is Literal:
        return " or ".join(map(str, typing.get_args(kind)))
    if typing.get_origin(kind) in (Sequence, tuple):
        return 'numbers joined by "+"'
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a word", types.NoneType: "none"}
    return words.get(kind, "")


def _value(text: str, kinds: Sequence[Any], what: str) -> Any:
    for kind in kinds:
        try:
            return _read(text, kind)
        except ValueError:
            continue
    raise ValueError(f"{what} is {text!r}; it must be {' or '.join(filter(None, map(_description, kinds)))}")


def _read(text: str, kind: Any) -> Any:
    """The value of a type that a text stands for; ValueError where it stands for none."""
    if kind is float:
        number = float(text)
        if not math.isfinite(number):
            raise ValueError(text)
        return number
    if kind in (int, str):
        return kind(text)
    if typing.get_origin(kind) in (Sequence, tuple):
        # Not at the plus of an exponent, as in 1e+3.
        return tuple(_read(part, float) for part in re.split(r"(?<!\d[eE])(?<!\.[eE])\+", text))
    words = _WORDS.get(kind) or {str(choice): choice for choice in typing.get_args(kind)}
    if text not in words:
        raise ValueError(text)
    return words[text]
