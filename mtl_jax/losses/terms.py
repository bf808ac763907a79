"""The notation of a task's loss: terms with weights and arguments, as in ce:smoothing=0.1+0.5*dice.

TERM+TERM adds terms. A term is NAME, NAME:ARGUMENT=VALUE,ARGUMENT=VALUE, or WEIGHT* before one of them. Several numbers
of one argument are joined by "/", as in ce:class_weights=0.5/1/2. A word in place of numbers, as in
class_weights=measured, stands for values that are measured on the training split; the path of a text file stands for
the numbers in the file.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax

from mtl_jax import notation, tasks
from mtl_jax.losses.masked import LabelCounts
from mtl_jax.losses.measured import MEASURED, Frequencies
from mtl_jax.losses.registry import LOSSES, bounds_of, find
from mtl_jax.registry import did_you_mean

_OF_CALLS = ("prediction", "logits", "label", "counts")  # parameters that are no arguments of the configuration


@dataclass(frozen=True)
class Term:
    """One term of a task's loss, as it is written.

    Attributes:
        weight: Weight of the term, as it is written; "" = 1.
        name: Name or short name of the loss.
        given: Arguments as they are written.
    """

    weight: str
    name: str
    given: str

    def __str__(self) -> str:
        return f"{self.weight and f'{self.weight}*'}{self.name}{self.given and f':{self.given}'}"


class TaskLoss:
    """The loss of a task: a weighted sum of terms.

    Args:
        text: The loss in the notation of this module.
        task: Name of the task.

    Raises:
        ValueError: The text is no such notation, a loss is unknown or does not fit the labels of the task, or an
            argument is unknown, has an impossible value or has yet to be measured.
    """

    def __init__(self, text: str, task: str):
        self._terms = [(term.name, _weight(term), _function(term, task)) for term in split(text)]

    def terms(self, prediction: jax.Array, label: jax.Array, counts: LabelCounts | None = None) -> dict[str, jax.Array]:
        """Computes {name: weighted value} of the terms, whose sum is the loss.

        Args:
            prediction: Prediction `[B, H, W, C]`.
            label: Label `[B, H, W, C']`.
            counts: Counts of the whole batch, if these images are a part of it.
        """
        values = {}
        for name, weight, function in self._terms:
            value = function(prediction, label, counts=counts)
            values[name] = value if weight == 1 else weight * value
        return values


def split(text: str) -> list[Term]:
    """Returns the terms of a loss in the notation of this module.

    Raises:
        ValueError: A term is empty or ends with a colon, or a loss stands there twice.
    """
    terms = []
    for part in notation.parts(text):
        head, given = notation.split(part)
        weight, _, name = head.rpartition("*")
        if not name.strip():
            raise ValueError(f"{text!r} has a term without a name; write NAME+NAME, for example ce+0.5*dice")
        terms.append(Term(weight.strip(), name.strip(), given))
    names = [term.name for term in terms]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{text!r} has the term {twice[0]} twice; write it once, with a weight such as 2*{twice[0]}")
    return terms


def check(text: str, task: str, num_channels: int) -> None:
    """Checks the loss of a task. What is measured, and files, are not read.

    Args:
        text: The loss in the notation of this module.
        task: Name of the task.
        num_channels: Number of logit channels of the task.

    Raises:
        ValueError: See `TaskLoss`, or there is another number of class weights than classes.
    """
    for term in split(text):
        _weight(term)
        name = find(term.name, tasks.get(task).kind)
        kept = [entry for entry in _entries(term) if _word(entry) is None]
        arguments = _arguments(replace(term, given=",".join(kept)), name)
        weights = arguments.get("class_weights")
        if weights is not None and len(weights) != num_channels:
            raise ValueError(
                f"the number of class_weights of {term.name} is {len(weights)}; {task} has {num_channels} classes. "
                'Give one weight for each class in the order of their ids, joined by "/", as in class_weights=1/0.5/2'
            )
        known = notation.parameters(LOSSES[name])
        for argument, word in filter(None, map(_word, _entries(term))):
            if argument not in known:
                _arguments(term, name)  # says which arguments there are
            _check_word(argument, word)


def needs_measuring(text: str) -> bool:
    """Returns True if a loss has an argument that is measured on the training split."""
    return any(word in MEASURED[argument] for term in split(text) for argument, word in _words(term))


def with_numbers(text: str, frequencies: Frequencies | None = None) -> str:
    """Returns the notation of a loss with numbers in place of words and files; measured ones have six digits.

    Args:
        text: The loss in the notation of this module, which `check` accepts.
        frequencies: How often each class occurs in the training split. None is enough where nothing is measured.

    Raises:
        ValueError: A file has something else than numbers, or there are no frequencies for what is measured.
        FileNotFoundError: There is no such file.
    """

    def explicit(entry: str) -> str:
        if (found := _word(entry)) is None:
            return entry
        argument, word = found
        if word not in MEASURED[argument]:
            return f"{argument}={'/'.join(map(repr, _read(argument, Path(word))))}"
        if frequencies is None:
            raise ValueError(f"{entry} is measured on the training split, of which no frequencies are given")
        return f"{argument}={'/'.join(f'{number:.6g}' for number in MEASURED[argument][word](frequencies))}"

    terms = [replace(term, given=",".join(map(explicit, _entries(term)))) for term in split(text)]
    return "+".join(map(str, terms))


def _entries(term: Term) -> list[str]:
    return term.given.split(",") if term.given else []


def _words(term: Term) -> list[tuple[str, str]]:
    return [found for found in map(_word, _entries(term)) if found is not None]


def _word(entry: str) -> tuple[str, str] | None:
    """Returns (argument, word) of an entry with a word, or a path, where numbers are expected; otherwise None."""
    argument, _, value = entry.partition("=")
    return None if argument not in MEASURED or value == "none" or _are_numbers(value) else (argument, value)


def _are_numbers(text: str) -> bool:
    try:
        return bool([float(number) for number in text.split("/")])
    except ValueError:
        return False


def _check_word(argument: str, word: str) -> None:
    """Raises a ValueError unless a word stands for measured values or is the path of a text file."""
    if word in MEASURED[argument] or re.search(r"\.[a-zA-Z]\w*$", word):
        return
    hint = did_you_mean(word, MEASURED[argument], 1, before=" ")
    raise ValueError(
        f'{argument} is {word!r}; it may be numbers joined by "/", {" or ".join(MEASURED[argument])}, or the path of a '
        f"text file with numbers.{hint}"
    )


def _read(argument: str, path: Path) -> tuple[float, ...]:
    """Returns the numbers in a text file, between which there are spaces, commas or line breaks."""
    if not path.is_file():
        raise FileNotFoundError(f"{argument} names the file {path}, which does not exist")
    words = re.split(r"[\s,]+", path.read_text(encoding="utf-8").strip())
    try:
        return tuple(map(float, words))
    except ValueError as error:
        raise ValueError(f"{path}, which {argument} names, must have numbers and nothing else: {error}") from error


def _weight(term: Term) -> float:
    try:
        weight = float(term.weight or 1)
    except ValueError:
        weight = math.nan
    if not (math.isfinite(weight) and weight >= 0):
        raise ValueError(f"the weight of {term.name} is {term.weight!r}; give a number of at least 0, as in 0.5*dice")
    return weight


def _function(term: Term, task: str) -> Callable[..., jax.Array]:
    if words := _words(term):
        argument, word = words[0]
        raise ValueError(f"{argument} of {term.name} is {word!r}, which is measured or read when training starts")
    name = find(term.name, tasks.get(task).kind)
    arguments = _arguments(term, name)
    return partial(LOSSES[name], **arguments) if arguments else LOSSES[name]


def _arguments(term: Term, name: str) -> dict[str, Any]:
    """Returns {argument: value} of the arguments of a term, once each value lies within its bounds."""
    arguments = notation.arguments(term.given, LOSSES[name], f"the loss {term.name}", _OF_CALLS)
    for argument, (least, greatest) in bounds_of(name).items():
        value = arguments.get(argument)
        values = value if isinstance(value, tuple) else () if value is None else (value,)
        if any(not least <= each <= greatest for each in values):
            limits = f"at least {least:g}" if greatest == math.inf else f"from {least:g} to {greatest:g}"
            raise ValueError(f"argument {argument} of the loss {term.name} is {value}; it must be {limits}")
    return arguments
