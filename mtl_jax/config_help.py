"""Help on the fields of a configuration, from the docstrings and rules of its dataclasses."""

import inspect
import re
import textwrap
import typing
from typing import Any

from mtl_jax import config_overrides, field_values
from mtl_jax.config import Config, rules_of

_ENTRY = re.compile(r"^    (\w+): (.*(?:\n     .*)*)", re.MULTILINE)
_INDENT, _WIDTH = " " * 6, 110


def text(config: Config, values: str) -> str:
    """Returns a paragraph for each field: its name, its value in a configuration, its meaning and its choices.

    Args:
        config: The configuration.
        values: What the values are, for the first line: "their defaults".
    """
    lines = [f"fields of the configuration, which --FIELD=VALUE overrides (here with {values}):"]
    for name, each, owner in config_overrides.fields():
        lines.append(f"  --{name}={_text_of(_value(config, name))}")
        meaning = attributes(owner)[each.name]
        choices = rules_of(each).choices
        allowed = choices(config) if callable(choices) else choices
        # A docstring that quotes the choices has said them.
        if allowed is not None and not all(f'"{choice}"' in meaning for choice in allowed if choice):
            meaning += f" Choices: {', '.join(choice for choice in allowed if choice)}."
        kind = field_values.in_words(each.type)
        lines += textwrap.wrap(f"{meaning} ({kind})", _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT)
    return "\n".join(lines)


def attributes(owner: type) -> dict[str, str]:
    """Returns {name: meaning} of the section "Attributes" in a class's docstring, each on one line."""
    section = (inspect.getdoc(owner) or "").partition("Attributes:\n")[2]
    return {name: " ".join(meaning.split()) for name, meaning in _ENTRY.findall(section)}


def _value(config: Config, name: str) -> Any:
    part: Any = config
    for step in name.split("."):
        part = getattr(part, step)
    return part


def _text_of(value: Any) -> str:
    if isinstance(value, tuple) and not any(isinstance(each, typing.Sized) and "," in str(each) for each in value):
        return ",".join(map(str, value))
    return str(value)
