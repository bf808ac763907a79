"""Lists the names that recipes and options understand: recipes, models, backbones, tasks, data sets and so on.

mtl list recipes
mtl list models
"""

import argparse
import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from mtl_jax import backbones, balancing, cli, heads, loggers, losses, metrics, models, optim, protocol, recipes, tasks
from mtl_jax.data import augmentation, catalogue

# Abbreviations, and initials of names, whose dot does not end a sentence.
_NO_END = "".join(rf"(?<!\b{word})" for word in ("al", "alg", "eq", "fig", "prop", "sec", "[A-Z]"))


def _documented(table: Mapping[str, Any]) -> Mapping[str, str]:
    """Returns {name: first sentence of the docstring of its entry}."""
    functions = {name: entry.func if isinstance(entry, partial) else entry for name, entry in table.items()}
    return {name: _first_sentence(getattr(entry, "__doc__", None) or "") for name, entry in functions.items()}


def _named(table: Iterable[str]) -> Mapping[str, str]:
    return dict.fromkeys(table, "")


def _recipes() -> Mapping[str, str]:
    return {name: _first_sentence(recipes.docstring(name)) for name in recipes.shipped()}


def _datasets() -> Mapping[str, str]:
    return {name: ", ".join(task for task in tasks.TASKS if row.has(task)) for name, row in catalogue.DATASETS.items()}


def _weights() -> Mapping[str, str]:
    """Returns {backbone and name of weights: their license and where they are}, in columns."""
    rows = {f"{backbone} {name}": row for backbone, rows in backbones.WEIGHTS.items() for name, row in rows.items()}
    license = max(len(row.license) for row in rows.values())
    return {
        name: f"{row.license:{license}}  {row.file.place}" + ("" if row.file.checksum else ", without a known checksum")
        for name, row in rows.items()
    }


def _losses() -> Mapping[str, str]:
    """Returns {name: short name, kinds of labels and first sentence} of the losses, in columns."""
    rows = {
        name: (
            losses.short_name(name) or "-",
            "for " + ", ".join(kind.__name__ for kind in losses.kinds_of(name)),
            sentence,
        )
        for name, sentence in _documented(losses.LOSSES).items()
    }
    short, kinds = (max(len(row[column]) for row in rows.values()) for column in (0, 1))
    return {name: f"{row[0]:{short}}  {row[1]:{kinds}}  {row[2]}" for name, row in rows.items()}


def _optimizers() -> Mapping[str, str]:
    """Returns {name: what it is, and its options with their defaults}."""

    def options(kind: type) -> str:
        defaults = [f"{each.name}={each.default}" for each in dataclasses.fields(kind) if each.name != "momentum"]
        return f"; options {', '.join(defaults)}" if defaults else ""

    meanings = _documented({name: entry.make for name, entry in optim.OPTIMIZERS.items()})
    return {name: meanings[name] + options(entry.options) for name, entry in optim.OPTIMIZERS.items()}


def _loggers() -> Mapping[str, str]:
    return {name: _first_sentence(entry.open.__doc__ or "") for name, entry in loggers.LOGGERS.items()}


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.strip().partition("\n\n")[0].split())
    sentence = re.split(rf"{_NO_END}\.(?= |$)", paragraph.removeprefix("Returns "), maxsplit=1)[0]
    return sentence[:1].upper() + sentence[1:]


KINDS: Mapping[str, Callable[[], Mapping[str, str]]] = {
    "recipes": _recipes,
    "models": lambda: _named(models.MODELS),
    "backbones": lambda: _named(backbones.BACKBONES),
    "weights": _weights,
    "heads": lambda: _documented(heads.HEADS),
    "regressions": lambda: _documented(heads.REGRESSIONS),
    "tasks": lambda: {name: f"loss {row.loss}, {row.criterion.name}" for name, row in tasks.TASKS.items()},
    "datasets": _datasets,
    "augmentations": lambda: _documented(augmentation.RECIPES),
    "losses": _losses,
    "loggers": _loggers,
    "metrics": lambda: _named(metrics.METRICS),
    "balancing": lambda: _documented(balancing.BALANCERS),
    "optimizers": _optimizers,
    "schedules": lambda: _named(optim.SCHEDULES),
    "protocols": lambda: _named(protocol.PROTOCOLS),
}


def add_arguments(parser: cli.Parser) -> None:
    parser.add_argument("kind", choices=list(KINDS), metavar="KIND", help=f"kind of names: {', '.join(KINDS)}")


def run(arguments: argparse.Namespace) -> None:
    entries = KINDS[arguments.kind]()
    width = max(map(len, entries))
    cli.show("\n".join(f"{name:{width}}  {meaning}".rstrip() for name, meaning in entries.items()))
