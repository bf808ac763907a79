"""Values of configuration fields: reads them from text and from JSON, and checks their types."""

import ast
import math
import numbers
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any

# A comma before a name. After a comma, PARAMETER= belongs to the name before it, as in csv,wandb:project=rooms,group=a.
_BEFORE_NAME = re.compile(r",(?!\s*\w+=)")
_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


def parse(text: str, kind: Any) -> Any:
    """Reads the value of a field from the command line.

    Args:
        text: The text. A tuple is `semseg,depth`, `semseg+depth`, `240x320`, or a Python tuple like `(240, 320)`. Names
            with parameters are joined by commas alone: `csv,wandb:project=rooms,group=a`. A mapping is a Python dict; a
            number in place of one is that of the name "all".
        kind: Type of the field. `Any` takes a number, true or false, or else the text itself.

    Raises:
        ValueError: The text is no value of this type.
    """
    try:
        value = _READERS[typing.get_origin(kind) or kind](text, kind)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        value = None
    if value is None or not has_type(value, kind):
        number = typing.get_origin(kind) is dict and typing.get_args(kind)[1] is float
        raise ValueError(f"{text!r}; expected {in_words(kind)}{', or a number for all names' if number else ''}")
    return value


def _read_bool(text: str, kind: Any) -> bool:
    lower = text.strip().lower()
    if lower not in (*_TRUE, *_FALSE):
        raise ValueError
    return lower in _TRUE


def _read_tuple(text: str, kind: Any) -> tuple[Any, ...]:
    text, inner = text.strip(), typing.get_args(kind)[0]
    if text.startswith(("(", "[")):
        return tuple(ast.literal_eval(text))
    if inner is str and ":" in text:
        parts = tuple(part.strip() for part in _BEFORE_NAME.split(text) if part.strip())
        if any("+" in part.partition(":")[0] for part in parts):
            raise ValueError(text)  # csv+wandb:project=rooms, where "+" may join values of a parameter
        return parts
    separator = next((each for each in (",", "+", "x") if each in text and (each != "x" or inner is int)), ",")
    return tuple(parse(part.strip(), inner) for part in text.split(separator) if part.strip())


def _read_mapping(text: str, kind: Any) -> Any:
    value = ast.literal_eval(text)
    return with_tuples({"all": value} if isinstance(value, numbers.Real) else value)


def _read_any(text: str, kind: Any) -> Any:
    words = {"true": True, "false": False}
    try:
        value = words.get(text.lower(), ast.literal_eval(text))
    except (ValueError, SyntaxError):
        value = words.get(text.lower(), text)
    return value if isinstance(value, numbers.Real) else text


_READERS: dict[Any, Callable[[str, Any], Any]] = {
    bool: _read_bool,
    int: lambda text, kind: int(text),
    float: lambda text, kind: float(text),
    str: lambda text, kind: text,
    tuple: _read_tuple,
    dict: _read_mapping,
    Any: _read_any,
}


def has_type(value: Any, kind: Any) -> bool:
    """Returns True if a value has the type of a field. Numbers must be finite; a tuple may be a list, as in JSON."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        kinds = [inner[0]] * len(value) if isinstance(value, list | tuple) and inner[1:] == (...,) else inner
        return isinstance(value, list | tuple) and len(value) == len(kinds) and all(map(has_type, value, kinds))
    if origin is dict:
        return isinstance(value, dict) and all(has_type(each, inner[1]) for each in value.values())
    if isinstance(value, bool):  # a bool is an int to Python
        return kind in (bool, Any)
    return finite(value) and (kind is Any or isinstance(value, (int, float) if kind is float else kind))


def in_words(kind: Any) -> str:
    """Returns the type of a field in words, for messages."""
    inner = typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        return f"a list of {'' if inner[1:] == (...,) else f'{len(inner)} '}{_PLURALS[inner[0]]}"
    if typing.get_origin(kind) is dict:
        return f"a mapping {{name: {in_words(inner[1])}}}"
    return _WORDS[kind]


_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "a string",
    Any: "a value with finite numbers",
}
_PLURALS: dict[Any, str] = {int: "whole numbers", str: "strings"}


def finite(value: Any) -> bool:
    """Returns False if a value is, or holds, a number that is infinite, NaN or beyond the range of floats."""
    if isinstance(value, Mapping):
        return all(map(finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(finite, value))
    if not isinstance(value, numbers.Real):
        return True
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def with_tuples(value: Any) -> Any:
    """Returns a value of JSON with tuples in place of lists."""
    if isinstance(value, list):
        return tuple(map(with_tuples, value))
    if isinstance(value, dict):
        return {key: with_tuples(inner) for key, inner in value.items()}
    return value
