"""Helpers of recipes: options after the colon of their names, and values by backbone."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import TypeVar

from mtl_jax.config.older_names import note_new_name

Recipe = TypeVar("Recipe")


def parse_arg(
    arg: str | None, *, aliases: Mapping[str, str] | None = None, **options: str | tuple[str, ...]
) -> SimpleNamespace:
    """Parses the part after the colon of `--config file.py:key=value,key=value`.

    A path may have commas: what follows a comma without "=" belongs to it.

    Args:
        arg: Text after the colon; None or empty = the defaults of all options.
        aliases: {older name of an option: its name}; a note in the log tells who uses the older name.
        options: {key: default}, or {key: (default, another value, ...)} where the option has no other values.

    Returns:
        A namespace with the value of every option.

    Raises:
        ValueError: The file has no such option, the option has no such value, or an entry has no "=".
    """
    aliases = aliases or {}
    choices = {key: option for key, option in options.items() if isinstance(option, tuple)}
    values = {key: option[0] if isinstance(option, tuple) else option for key, option in options.items()}
    previous = ""
    for entry in _entries(arg or ""):
        key, separator, value = entry.partition("=")
        if key in aliases:
            note_new_name(f"the option {key}=", f"{aliases[key]}=")
            key = aliases[key]
        if not separator or key not in options:
            offered = ", ".join(f"{k}={'|'.join(choices.get(k, (v,)))}" for k, v in values.items()) or "none"
            joined = "" if separator or not previous else f"; to give several values, write {previous}+{entry}"
            raise ValueError(f"option {entry!r} is not one of this recipe's ({offered}){joined}")
        previous = entry
        if value not in choices.get(key, (value,)):
            allowed = " or ".join(map(repr, choices[key]))
            raise ValueError(f"the option {key} of the recipe is {value!r}; it may be {allowed}")
        values[key] = value
    return SimpleNamespace(**values)


def _entries(arg: str) -> list[str]:
    entries: list[str] = []
    for part in arg.split(","):
        if entries and "=" not in part and "/" in entries[-1]:
            entries[-1] += f",{part}"
        else:
            entries.append(part)
    return [entry for entry in entries if entry]


def for_backbone(backbone: str, **recipes: Recipe) -> Recipe:
    """Returns the recipe for a backbone.

    Recipes are published for one backbone of a family; the other backbones of the family take the same recipe.

    Args:
        backbone: Name of the backbone. It begins with the name of its family, as in hrnet_w18.
        recipes: {family: its recipe}.

    Raises:
        ValueError: No family has this backbone.
    """
    for family, recipe in recipes.items():
        if backbone.startswith(family):
            return recipe
    families = " or ".join(map(repr, recipes))
    raise ValueError(f"there is no recipe for backbone {backbone!r}; give one whose name begins with {families}")
