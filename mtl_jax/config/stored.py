"""The text of the configuration that is stored beside checkpoints."""

import dataclasses
import json
from typing import Any

from mtl_jax import field_values
from mtl_jax.config.older_names import UPGRADES
from mtl_jax.config.sections import Config


def to_json(config: Config) -> str:
    """Returns the text of the configuration that is stored beside checkpoints."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(text: str, source: str) -> Config:
    """Returns the configuration of a text that this or an older version's `to_json` returned.

    Fields that the text lacks take their defaults: the default of a field that is added later keeps the behaviour of
    the versions without the field.

    Args:
        text: The text.
        source: Name of the file with the text, for errors.

    Raises:
        ValueError: The text is no JSON object, has fields that this version does not know, or a field has a value of
            another type.
    """
    try:
        content = json.loads(text)
        for upgrade in UPGRADES:
            upgrade(content)
        return _build(Config, content, "")
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{source} is not a configuration of this version of mtl_jax: {error}") from error


def _build(cls: Any, values: Any, prefix: str) -> Any:
    if not isinstance(values, dict):
        raise ValueError(f"{prefix.rstrip('.') or 'the file'} holds {values!r} in place of fields")
    known = {f.name: f for f in dataclasses.fields(cls)}
    if lost := [name for name, f in known.items() if dataclasses.is_dataclass(f.type) and name not in values]:
        raise ValueError(f"missing sections {', '.join(lost)}")
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"unknown fields {', '.join(prefix + name for name in unknown)}")
    kwargs = {}
    for name, value in values.items():
        kind = known[name].type
        if dataclasses.is_dataclass(kind):
            kwargs[name] = _build(kind, value, f"{prefix}{name}.")
        elif field_values.has_type(value, kind):
            kwargs[name] = field_values.with_tuples(value)
        else:
            raise ValueError(f"{prefix}{name} is {json.dumps(value)}; expected {field_values.in_words(kind)}")
    return cls(**kwargs)
