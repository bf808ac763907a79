"""Lists the names that recipes and options understand: recipes, models, backbones, tasks, data sets and so on.

mtl list recipes
mtl list models
"""

import argparse
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from mtl_jax import backbones, balancing, cli, heads, loggers, losses, metrics, models, optim, protocol, recipes, tasks
from mtl_jax.data import catalogue, transforms

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
    "heads": lambda: _documented(heads.HEADS),
    "tasks": lambda: {name: f"loss {row.loss}, {row.criterion.name}" for name, row in tasks.TASKS.items()},
    "datasets": _datasets,
    "augmentations": lambda: _named(transforms.RECIPES),
    "losses": lambda: _documented(losses.LOSSES),
    "loggers": _loggers,
    "metrics": lambda: _named(metrics.METRICS),
    "balancing": lambda: _documented(balancing.BALANCERS),
    "optimizers": lambda: _named(optim.OPTIMIZERS),
    "schedules": lambda: _named(optim.SCHEDULES),
    "protocols": lambda: _named(protocol.PROTOCOLS),
}


def add_arguments(parser: cli.Parser) -> None:
    parser.add_argument("kind", choices=list(KINDS), metavar="KIND", help=f"kind of names: {', '.join(KINDS)}")


def run(arguments: argparse.Namespace) -> None:
    entries = KINDS[arguments.kind]()
    width = max(map(len, entries))
    cli.show("\n".join(f"{name:{width}}  {meaning}".rstrip() for name, meaning in entries.items()))
