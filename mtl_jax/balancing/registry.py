"""The table of balancing methods by name, and their notation on the command line."""

import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

from mtl_jax.balancing.core import Balancer
from mtl_jax.registry import Registry

Method = TypeVar("Method", bound=Callable[..., Balancer])

BALANCERS: Registry[Callable[..., Balancer]] = Registry(
    "balancing method", "balancing methods", "mtl_jax.balancing.register"
)


def register(method: Method) -> Method:
    """Adds a balancing method to `BALANCERS` under the name of its function, and returns the function.

    A decorator, inside this package as well as outside of it:

        @balancing.register
        def largest(*, margin: float = 0.0) -> balancing.Balancer:
            ...

    makes `balancing.parse("largest:margin=0.1")` and `--balancing=largest:margin=0.1` possible.

    Args:
        method: Function with keyword parameters only, each with a type annotation and a default, that returns a
            `Balancer`.

    Raises:
        ValueError: another method has this name.
    """
    BALANCERS.register(method.__name__, method)
    return method


_WORDS: dict[Any, dict[str, Any]] = {bool: {"true": True, "false": False}, types.NoneType: {"none": None}}


def parse(text: str) -> Balancer:
    """Builds a method from its notation on the command line: NAME or NAME:PARAMETER=VALUE,PARAMETER=VALUE.

    Values are numbers, true, false, none or words, according to the annotation of the parameter. Several numbers are
    joined by "+", as in fixed:weights=1+10+50. A parameter that is a function can be set in Python only.

    Raises:
        ValueError: the method or a parameter is unknown, or a value has the wrong type or lies outside its range.
    """
    name, colon, rest = text.partition(":")
    method = BALANCERS[name]
    parameters = _parameters(method)
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
    return method(**values)


def _parameters(method: Callable[..., Balancer]) -> dict[str, tuple[tuple[Any, ...], Any]]:
    """Returns {parameter: (permitted types, default)} of the parameters that have a notation on the command line."""
    hints = typing.get_type_hints(method)
    parameters = {}
    for name, parameter in inspect.signature(method).parameters.items():
        hint = hints[name]
        union = typing.get_origin(hint) in (typing.Union, types.UnionType)
        kinds = typing.get_args(hint) if union else (hint,)
        if any(_description(kind) for kind in kinds):
            parameters[name] = (kinds, parameter.default)
    return parameters


def _description(kind: Any) -> str:
    """Describes the notation of a type's values; returns "" for a type without one."""
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
    """Reads a value of a type from a text, and raises ValueError where the text is no such value."""
    if kind is float:
        number = float(text)
        if not math.isfinite(number):
            raise ValueError(text)
        return number
    if kind in (int, str):
        return kind(text)
    if typing.get_origin(kind) in (Sequence, tuple):
        # Splits at every plus except that of an exponent, as in 1e+3.
        return tuple(_read(part, float) for part in re.split(r"(?<!\d[eE])(?<!\.[eE])\+", text))
    words = _WORDS.get(kind) or {str(choice): choice for choice in typing.get_args(kind)}
    if text not in words:
        raise ValueError(text)
    return words[text]
