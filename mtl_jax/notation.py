"""The notation NAME:PARAMETER=VALUE,PARAMETER=VALUE of things that a configuration names with their parameters.

Values are numbers, true, false, none or words, according to the annotation of the parameter. Several numbers or words
are joined by "+", as in fixed:weights=1+10+50.
"""

import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, Literal

_WORDS: dict[Any, dict[str, Any]] = {bool: {"true": True, "false": False}, types.NoneType: {"none": None}}


def split(text: str) -> tuple[str, str]:
    """Returns the name, and the parameters as they are written; the latter are empty where there are none.

    Raises:
        ValueError: A colon stands at the end.
    """
    name, colon, given = text.partition(":")
    if colon and not given:
        raise ValueError(f"{text!r} ends with a colon; write {name}:PARAMETER=VALUE, or {name} alone")
    return name, given


def arguments(given: str, function: Callable[..., Any], what: str) -> dict[str, Any]:
    """Returns {parameter: value} of parameters as they are written, for a call of the function.

    Args:
        given: PARAMETER=VALUE,PARAMETER=VALUE, or an empty text.
        function: Function or class whose keyword parameters have type annotations and defaults.
        what: Description of the function for error messages, such as "the balancing method cagrad".

    Raises:
        ValueError: A parameter is unknown or given twice, or a value has the wrong type.
    """
    known = parameters(function)
    values: dict[str, Any] = {}
    for entry in given.split(",") if given else ():
        key, equals, value = entry.partition("=")
        if not equals or key not in known:
            offered = ", ".join(f"{key}={default}" for key, (_, default) in known.items()) or "no parameters"
            raise ValueError(f"{entry!r} is no parameter=value of {what}; it takes {offered}")
        if key in values:
            raise ValueError(f"parameter {key} of {what} is given twice")
        values[key] = _value(value, known[key][0], f"parameter {key} of {what}")
    return values


def parameters(function: Callable[..., Any]) -> dict[str, tuple[tuple[Any, ...], Any]]:
    """Returns {parameter: (permitted types, default)} of the parameters that have a notation on the command line."""
    hints = typing.get_type_hints(function)
    with_notation = {}
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints[name]
        union = typing.get_origin(hint) in (typing.Union, types.UnionType)
        kinds = typing.get_args(hint) if union else (hint,)
        if any(_description(kind) for kind in kinds):
            with_notation[name] = (kinds, parameter.default)
    return with_notation


def _description(kind: Any) -> str:
    """Describes the notation of a type's values; returns "" for a type without one."""
    if typing.get_origin(kind) is Literal:
        return " or ".join(map(str, typing.get_args(kind)))
    if typing.get_origin(kind) in (Sequence, tuple):
        return f'{"words" if _of_words(kind) else "numbers"} joined by "+"'
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a word", types.NoneType: "none"}
    return words.get(kind, "")


def _of_words(kind: Any) -> bool:
    return typing.get_origin(kind) in (Sequence, tuple) and typing.get_args(kind)[0] is str


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
    if _of_words(kind):
        return tuple(text.split("+"))
    if typing.get_origin(kind) in (Sequence, tuple):
        # Splits at every plus except that of an exponent, as in 1e+3.
        return tuple(_read(part, float) for part in re.split(r"(?<!\d[eE])(?<!\.[eE])\+", text))
    words = _WORDS.get(kind) or {str(choice): choice for choice in typing.get_args(kind)}
    if text not in words:
        raise ValueError(text)
    return words[text]
