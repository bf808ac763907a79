"""Fields of a configuration on the command line: `--optim.lr=3e-4`, or in the longer form `--config.optim.lr=3e-4`."""

import dataclasses
import difflib
import functools
import logging
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mtl_jax import field_values
from mtl_jax.config import Config, rules_of

logger = logging.getLogger(__name__)

_PREFIX = "config."
# {name that other libraries use: field}
_ALIASES = {
    "learning_rate": "optim.lr",
    "workers": "data.num_workers",
    "num_epochs": "train.epochs",
    "max_epochs": "train.epochs",
    "max_steps": "train.steps",
    "max_iters": "train.steps",
    "wd": "optim.weight_decay",
}


@dataclass(frozen=True)
class Override:
    """One field and its new value.

    Attributes:
        option: The option as the user writes it, for error messages: `--config.optim.lr`.
        name: Name of the field: `optim.lr`; an entry of a dict is `losses.semseg`.
        text: The value as the user writes it.
    """

    option: str
    name: str
    text: str


def split(arguments: Sequence[str]) -> tuple[list[Override], list[str]]:
    """Splits the arguments of a command into those that set fields, and the others.

    A field that is true or false is true where its option has no `=`.

    Raises:
        ValueError: An argument names a field that does not exist, or has no value.
    """
    overrides, others, left = [], [], list(arguments)
    while left:
        argument = left.pop(0)
        option, equals, text = argument.partition("=")
        name = _field_name(option)
        if name is None:
            others.append(argument)
            continue
        kind = _type_of(option, name)
        if not equals and kind is bool:
            text = "true"
        elif not equals:
            if not left or left[0].startswith("--"):
                raise ValueError(f"{option} has no value; write {option}=VALUE")
            text = left.pop(0)
        overrides.append(Override(option, name, text))
    return overrides, others


def apply(config: Config, overrides: Sequence[Override]) -> Config:
    """Sets fields of a configuration, in place, and returns the configuration.

    A field that says the same in another unit (`Rules.instead_of`) becomes 0 unless it is set, too.

    Raises:
        ValueError: A value has another type than its field.
    """
    for override in overrides:
        kind = _type_of(override.option, override.name)
        owner, key = _owner_and_key(override.name)
        try:
            value = field_values.parse(override.text, kind)
        except ValueError as error:
            raise ValueError(f"{override.option} is {error}") from error
        part = _part(config, filter(None, owner.split(".")))
        if isinstance(part, dict):
            part[key] = value
        else:
            setattr(part, key, value)
    _clear_other_units(config, [override.name for override in overrides])
    return config


def _part(config: Config, path: Iterable[str]) -> Any:
    return functools.reduce(getattr, path, config)


def _clear_other_units(config: Config, names: Sequence[str]) -> None:
    """Sets the fields to 0 that say in another unit what the named fields say, unless they are named themselves."""
    for name in names:
        other = rules_of(_FIELDS[name]).instead_of if name in _FIELDS else ""
        if not other or other in names or not _part(config, name.split(".")):
            continue
        *path, field = other.split(".")
        section = _part(config, path)
        if value := getattr(section, field):
            logger.info("%s is given and takes the place of %s, which was %s", name, other, value)
            setattr(section, field, 0)


def fields(part: Any = Config, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any], type]]:
    """Yields (name, field, class with the field) of every field that can be set: `optim.lr` and so on."""
    for each in dataclasses.fields(part):
        name = prefix + each.name
        if isinstance(each.type, type) and dataclasses.is_dataclass(each.type):
            yield from fields(each.type, f"{name}.")
        else:
            yield name, each, part


_FIELDS = {name: each for name, each, _ in fields()}
_SECTIONS = {name.partition(".")[0] for name in _FIELDS if "." in name}


def _field_name(option: str) -> str | None:
    """Returns the name of the field that an option sets, or None for an option of the command itself."""
    if not option.startswith("--"):
        return None
    name = option[2:]
    if name.startswith(_PREFIX):
        return name.removeprefix(_PREFIX)
    section, dot, _ = name.partition(".")
    return name if name in _FIELDS or (dot and section in (*_SECTIONS, *_FIELDS)) else None


def _owner_and_key(name: str) -> tuple[str, str]:
    """Returns (name of the section or dict, name in it); keys of dicts may have dots, as paths in a model have."""
    for field, each in _FIELDS.items():
        if typing.get_origin(each.type) is dict and name.startswith(f"{field}."):
            return field, name.removeprefix(f"{field}.")
    owner, _, key = name.rpartition(".")
    return owner, key


def _type_of(option: str, name: str) -> Any:
    """Returns the type of a field, or of an entry of a dict.

    Raises:
        ValueError: There is no such field.
    """
    if name in _FIELDS:
        return _FIELDS[name].type
    parent, key = _owner_and_key(name)
    if key and parent in _FIELDS and typing.get_origin(_FIELDS[parent].type) is dict:
        return typing.get_args(_FIELDS[parent].type)[1]
    near = [_ALIASES[key]] if key in _ALIASES else []
    near += [known for known in difflib.get_close_matches(name, _FIELDS, 3, 0.5) if known not in near]
    near += [known for known in _FIELDS if known.rpartition(".")[2] == key and known not in near]
    hint = f"; the nearest are {', '.join(near)}" if near else ""
    raise ValueError(f"{option}: the configuration has no field {name}{hint}. `mtl train --help` lists the fields")
