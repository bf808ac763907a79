"""Options of things that a configuration names, such as a model or an optimiser, as frozen dataclasses."""

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mtl_jax.registry import did_you_mean


@dataclass(frozen=True)
class NoOptions:
    """The options of a thing that has none."""


def read(kind: type, given: Mapping[str, Any], *, field: str, owner: str) -> Any:
    """Returns an instance of a class of options: the given values over its defaults.

    Args:
        kind: A dataclass whose fields have the types bool, int, float or str, and defaults. Its `__post_init__` may
            check values and raise a ValueError.
        given: {option: value}.
        field: Field of the configuration that holds the options, for error messages: "model.options".
        owner: What has the options, for error messages: "model cross_stitch".

    Raises:
        ValueError: There is no such option, or its value has another type or is impossible.
    """
    hints = typing.get_type_hints(kind)
    types = {each.name: hints[each.name] for each in dataclasses.fields(kind)}
    for name, value in given.items():
        if name not in types:
            hint = did_you_mean(name, types, 1, before=". ")
            offered = f"the options of {owner} are {', '.join(types)}" if types else f"{owner} has no options"
            raise ValueError(f"{field}.{name} is {value!r}, but {offered}{hint}")
    try:
        return kind(**{name: _convert(f"{field}.{name}", value, types[name]) for name, value in given.items()})
    except ValueError as error:
        raise ValueError(f"{owner}: {error}") from error


def _convert(name: str, value: Any, kind: Any) -> Any:
    """Returns the value of an option as its type; whole numbers are floats too, truth values are no numbers."""
    kind = typing.get_origin(kind) or kind
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{name} is {value!r}; give a value of type {kind.__name__}")
    return value
