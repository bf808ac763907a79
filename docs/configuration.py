"""Writes configuration.md, the reference of all fields and names, from the dataclasses and tables of the package.

python docs/configuration.py           # writes the page
python docs/configuration.py --check   # says whether the page is current, by the exit status
"""

import argparse
import dataclasses
import inspect
import re
import sys
import types
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from flax import nnx

from mtl_jax import config_help, config_overrides, field_values, notation
from mtl_jax.commands import list_names
from mtl_jax.config import Config, rules_of
from mtl_jax.registry import Registry

PAGE = Path(__file__).with_suffix(".md")
INTRODUCTION = """# Configuration reference

Every field of a configuration, and every name that a field takes. `python docs/configuration.py` writes this page from
the docstrings and tables of the package; a test says when the page is not current.

A recipe is a Python file that returns a `Config`; `--SECTION.FIELD=VALUE` overrides a field on the command line:

```sh
mtl train nyud_mtinet --optim.lr=3e-4 --data.image_size=240x320 --losses.depth=depth_l1 --workdir runs/x
mtl train nyud_mtinet --help      # the fields with the values of this recipe
mtl list balancing                # the names of one kind
```

Lists are `a,b`, `a+b` or, of whole numbers, `240x320`. One entry of a mapping is `--loss_weights.edge=50`. The text ""
is an empty value: `--model.pretrained=`."""
BAR = r"\|"  # a bar within a cell of a table
SECTIONS = {"": "Fields without a section"}  # headings that are not the name of a section
NAMES = """## Names

The names that fields, recipes and options take. `NAME:PARAMETER=VALUE,PARAMETER=VALUE` sets parameters where the field
allows it, for example `--balancing=dwa:temperature=3`; parameters of models are `--model.options.NAME=VALUE`, those of
optimisers `--optim.options.NAME=VALUE`. Modules that `imports` names add to these tables
([contributing](../CONTRIBUTING.md))."""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A field, an option or a parameter, in words."""

    name: str
    kind: str
    default: str
    meaning: str


def page() -> str:
    """Returns the text of the page."""
    blocks = [INTRODUCTION]
    sections: dict[str, list[Parameter]] = {}
    owners: dict[str, type] = {}
    for name, each, owner in config_overrides.fields():
        section = name.rpartition(".")[0]
        sections.setdefault(section, []).append(field(name, each, owner))
        owners[section] = owner
    for section, rows in sections.items():
        heading = SECTIONS.get(section, f"`{section}`")
        blocks.append(f"## {heading}\n\n{summary(owners[section])}\n\n{table('field', rows)}")
    blocks.append(NAMES)
    blocks += [names(kind, entries()) for kind, entries in list_names.KINDS.items()]
    return "\n\n".join(blocks) + "\n"


def field(name: str, each: dataclasses.Field[Any], owner: type) -> Parameter:
    """Returns a field of the configuration, or an option of a model."""
    meaning, rules = config_help.attributes(owner).get(each.name, ""), rules_of(each)
    choices = rules.choices
    allowed = choices(Config()) if callable(choices) else choices
    if allowed is not None and not all(f'"{choice}"' in meaning for choice in allowed if choice):
        meaning += f" One of {', '.join(f'`{choice}`' for choice in allowed if choice)}."
    if rules.may_change:
        meaning += " It may change when a run continues."
    bounds = {"at least": rules.least, "at most": rules.most, "below": rules.below}
    limits = [f"{words} {bound:g}" for words, bound in bounds.items() if bound is not None]
    limits = ["above 0", *limits] if rules.positive else limits
    default = each.default if each.default is not dataclasses.MISSING else each.default_factory()
    return Parameter(name, ", ".join([in_words(each.type), *limits]), written(default), meaning)


def names(kind: str, meanings: Mapping[str, str]) -> str:
    """Returns the part of the page about the names of one kind."""
    found = registry_of(meanings)
    parts = [f"### {kind.capitalize()}"]
    told = {name: re.sub(" {2,}", "; ", meaning) for name, meaning in meanings.items()}  # columns of `mtl list`
    listed = [f"* `{name}`{f': {meaning}' if meaning else ''}" for name, meaning in told.items()]
    parts.append("\n".join(listed) if any(meanings.values()) else ", ".join(f"`{name}`" for name in meanings))
    alike: dict[tuple[Parameter, ...], list[str]] = {}
    for name in meanings:
        alike.setdefault(tuple(parameters(found.get(name))), []).append(f"`{name}`")
    parts += [f"Parameters of {', '.join(of)}:\n\n{table('parameter', rows)}" for rows, of in alike.items() if rows]
    return "\n\n".join(parts)


def registry_of(entries: Iterable[str]) -> Mapping[str, Any]:
    """Returns the table of the package that has exactly these names, or an empty one."""
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "mtl_jax"]
    tables = [value for module in modules for value in vars(module).values() if isinstance(value, Registry)]
    return next((found for found in tables if list(found) == list(entries)), {})


def parameters(entry: Any) -> Iterator[Parameter]:
    """Yields what can be set of an entry: fields of its class of options, and parameters with defaults."""
    within = (
        [getattr(entry, each.name) for each in dataclasses.fields(entry)] if dataclasses.is_dataclass(entry) else []
    )
    for each in (entry, *within):
        if isinstance(each, type) and dataclasses.is_dataclass(each):
            yield from (field(option.name, option, each) for option in dataclasses.fields(each))
        elif isinstance(each, type) and issubclass(each, nnx.Module):
            yield from parameters_of(each.__init__, arguments(each), ("self", "rngs"))  # type: ignore[misc]
        elif inspect.isfunction(each):
            yield from parameters_of(each, arguments(each))


def parameters_of(function: Any, meanings: Mapping[str, str], left_out: Collection[str] = ()) -> Iterator[Parameter]:
    """Yields the parameters of a function that have a default, and a notation on the command line.

    There are none where a parameter has no annotation, or a keyword parameter no default: code calls such functions.

    Args:
        function: The function.
        meanings: {parameter: meaning}.
        left_out: Parameters that do not count.
    """
    given = {name: each for name, each in inspect.signature(function).parameters.items() if name not in left_out}
    keywords = [each for each in given.values() if each.kind is inspect.Parameter.KEYWORD_ONLY]
    if set(given) - set(function.__annotations__) or any(each.default is each.empty for each in keywords):
        return
    for name, (kinds, default) in notation.parameters(function).items():
        words = list(filter(None, map(word, kinds)))
        if default is not inspect.Parameter.empty and words and words != ["none"]:
            yield Parameter(name, " or ".join(words), written(default), meanings.get(name, ""))


def word(kind: Any) -> str:
    """Returns the type of a parameter in words, "" for a type whose values cannot be written."""
    if typing.get_origin(kind) is Literal:
        return " or ".join(f"`{choice}`" for choice in typing.get_args(kind))
    if typing.get_origin(kind) is not None:
        return "numbers"
    return WORDS.get(kind, "" if kind.__module__ != notation.__name__ else kind.__name__.lower())


WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a word", types.NoneType: "none"}


def in_words(kind: Any) -> str:
    """Returns the type of a field in words."""
    if typing.get_origin(kind) is Literal:
        return word(kind)
    if typing.get_origin(kind) in (tuple, dict) or kind in (bool, str, Any):
        return field_values.in_words(kind)
    return WORDS.get(kind, str(kind))


def arguments(function: Any) -> dict[str, str]:
    """Returns {parameter: meaning} of the section "Args" of a docstring, each on one line."""
    section = re.split(r"\n(?=\S)", (inspect.getdoc(function) or "").partition("Args:\n")[2])[0]
    found = re.findall(r"^    (\w+): (.*(?:\n     .*)*)", section, re.MULTILINE)
    return {name: " ".join(meaning.split()) for name, meaning in found}


def written(default: Any) -> str:
    """Returns a default as it stands in Python; where its type has a notation of its own, in that."""
    text = str(default) if type(default).__module__ == notation.__name__ else repr(default)
    return f"`{text}`".replace("'", '"')


def summary(owner: type) -> str:
    """Returns the first paragraph of a docstring on one line."""
    return " ".join((inspect.getdoc(owner) or "").partition("\n\n")[0].split())


def table(title: str, rows: Iterable[Parameter]) -> str:
    """Returns rows as a table of Markdown."""
    lines = [f"| {title} | default | type | meaning |", "|---|---|---|---|"]
    cells = [(f"`{row.name}`", row.default, row.kind, row.meaning) for row in rows]
    return "\n".join(
        [*lines, *(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in cells)]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if the page is not current")
    text = page()
    if not parser.parse_args().check:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        sys.exit(f"{PAGE} is not current; write it anew: python docs/configuration.py")


if __name__ == "__main__":
    main()
