"""The notation NAME:PARAMETER=VALUE,PARAMETER=VALUE of things that a configuration names with their parameters.

Values are numbers, true, false, none or words, according to the annotation of the parameter. Several words are joined
by "+", several numbers by "+" or "/", as in fixed:weights=1+10+50. Several things are joined by "+", as in
ce:smoothing=0.1+dice; then only "/" joins numbers. The ends of an interval are joined by "-", as in invpt:scale=0.5-2.
"""

import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal, NamedTuple

from mtl_jax.registry import did_you_mean

# Every plus except that of an exponent, as in 1e+3.
_PLUS = re.compile(r"(?<!\d[eE])(?<!\.[eE])\+")
_NUMBER = r"\d*\.?\d+(?:[eE][+-]?\d+)?"  # without a sign
_WORDS: dict[Any, dict[str, Any]] = {bool: {"true": True, "false": False}, types.NoneType: {"none": None}}


class Interval(NamedTuple):
    """The numbers from `low` to `high`, which is written low-high; none of them is negative."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:g}-{self.high:g}"


def split(text: str) -> tuple[str, str]:
    """Returns the name, and the parameters as they are written; the latter are empty where there are none.

    Raises:
        ValueError: A colon stands at the end.
    """
    name, colon, given = text.partition(":")
    if colon and not given:
        raise ValueError(f"{text!r} ends with a colon; write {name}:PARAMETER=VALUE, or {name} alone")
    return name, given


def parts(text: str) -> list[str]:
    """Returns the things that a text joins by "+", without the spaces around them."""
    return [part.strip() for part in _PLUS.split(text)]


def arguments(given: str, function: Callable[..., Any], what: str, leave_out: Collection[str] = ()) -> dict[str, Any]:
    """Returns {parameter: value} of parameters as they are written, for a call of the function.

    Args:
        given: PARAMETER=VALUE,PARAMETER=VALUE, or an empty text.
        function: Function or class whose keyword parameters have type annotations and defaults.
        what: Description of the function for error messages, such as "the balancing method cagrad".
        leave_out: Parameters that have no notation, whatever their annotation.

    Raises:
        ValueError: A parameter is unknown or given twice, or a value has the wrong type.
    """
    known = {name: entry for name, entry in parameters(function).items() if name not in leave_out}
    values: dict[str, Any] = {}
    for entry in given.split(",") if given else ():
        key, equals, value = entry.partition("=")
        if not equals or key not in known:
            offered = ", ".join(f"{key}={written(default)}" for key, (_, default) in known.items()) or "no parameters"
            hint = did_you_mean(key, known, 1, before=". ")
            raise ValueError(f"{entry!r} is no parameter=value of {what}; it takes {offered}{hint}")
        if key in values:
            raise ValueError(f"parameter {key} of {what} is given twice")
        values[key] = _value(value, known[key][0], f"parameter {key} of {what}")
    return values


def written(value: Any) -> str:
    """Returns the notation of a value that is no sequence: true and none in place of True and None."""
    text = str(value)
    return text.lower() if isinstance(value, bool | None) else text


def parameters(function: Callable[..., Any]) -> dict[str, tuple[tuple[Any, ...], Any]]:
    """Returns {parameter: (permitted types, default)} of the parameters that have a notation on the command line."""
    with_notation = {}
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        hint = parameter.annotation
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
        return 'words joined by "+"' if _of_words(kind) else 'numbers joined by "+" or "/"'
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a word", types.NoneType: "none"}
    words |= {Interval: "an interval LOW-HIGH such as 0.5-2"}
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
    if kind is Interval:
        return _interval(text)
    if _of_words(kind):
        return tuple(text.split("+"))
    if typing.get_origin(kind) in (Sequence, tuple):
        return tuple(_read(part, float) for plus in parts(text) for part in plus.split("/"))
    words = _WORDS.get(kind) or {str(choice): choice for choice in typing.get_args(kind)}
    if text not in words:
        raise ValueError(text)
    return words[text]


def _interval(text: str) -> Interval:
    ends = re.fullmatch(f"({_NUMBER})-({_NUMBER})", text)
    if ends is None or float(ends[1]) > float(ends[2]):
        raise ValueError(text)
    return Interval(float(ends[1]), float(ends[2]))
