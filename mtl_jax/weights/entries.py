"""Choice of the weights among the entries of a training checkpoint.

An entry is a dictionary in the checkpoint. Its name consists of the keys that lead to it: "checkpoint/model", for
example.
"""

import logging
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from mtl_jax.runtime.messages import listing
from mtl_jax.weights.inert_pickle import Unknown, describe
from mtl_jax.weights.torch_file import Tensor

logger = logging.getLogger(__name__)

# Keys under which training scripts store weights, and averages of weights over the training.
_PLAIN = ("state_dict", "model_state_dict", "model", "module")
_AVERAGED = ("state_dict_ema", "model_ema", "ema", "teacher")
# Beginnings of the names of placeholders that stand for tensors or arrays of other kinds.
_OTHER_TENSORS = (
    "tensor of ",
    "torch._utils.",
    "torch._tensor.",
    "torch.nn.parameter.",
    "torch.Tensor",
    "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray._reconstruct",
)
_MAX_DEPTH, _MAX_ENTRIES = 8, 1000
_OPTION = "--model.pretrained_entry=NAME, or --entry=NAME of `mtl convert`"

Name = tuple[str, ...]


def choose(tree: Any, entry: str, path: Path) -> dict[str, Tensor]:
    """Returns {name: tensor} of the weights in a checkpoint.

    The weights are the content itself, or an entry whose keys are usual ones for weights. Plain weights come before
    averaged ones. A log line names the entry that is taken and all others with tensors.

    Args:
        tree: Content of the checkpoint.
        entry: Name of the entry in which the weights lie; empty = anywhere.
        path: Path of the checkpoint, for messages.

    Raises:
        ValueError: The checkpoint has no weights, or has them in several entries, or has no entry of this name; or a
            tensor among the weights is of a kind that is not read.
    """
    entries = dict(islice(_entries(tree), _MAX_ENTRIES))
    sizes = {name: sum(isinstance(value, Tensor) for value in entries[name].values()) for name in entries}
    # A dictionary with more tensors below it than in it, a loss beside the weights for example, is not the weights.
    filled = [name for name, n in sizes.items() if n and n >= max(sizes[other] for other in _within(name, sizes))]
    start: Name = ()
    if entry:
        same = [name for name in entries if _text(name) == entry]
        if not same:
            raise ValueError(f"{path} has no entry {entry!r}; the entries with tensors are {_list(filled)}")
        start = same[0]
    usual = [name for name in _within(start, filled) if set(name[len(start) :]) <= {*_PLAIN, *_AVERAGED}]
    innermost = [name for name in usual if len(_within(name, usual)) == 1]
    plain = [name for name in innermost if not set(name[len(start) :]) & set(_AVERAGED)]
    match plain or innermost:
        case [name]:
            pass
        case []:
            if filled:
                raise ValueError(f"{path} holds more than named arrays: {_list(filled)}. Name one entry: {_OPTION}")
            raise ValueError(f"{path} holds {_content(tree)} instead of named arrays; save a model's state_dict()")
        case several:
            raise ValueError(f"{path} holds several models: {_list(several)}. Name one entry: {_OPTION}")
    if others := [other for other in filled if other != name]:
        logger.info("%s: reads the entry %s; others with tensors are %s", path, _shown(name), _list(others))
    elif name:
        logger.info("%s: reads the entry %s", path, _shown(name))
    return _tensors(entries[name], f"{path}, {_shown(name)}")


def _entries(tree: Any) -> Iterator[tuple[Name, dict[Any, Any]]]:
    """Yields (name, dictionary) of all entries, the outer ones first. An entry with several names has the first."""
    level: list[tuple[Name, Any]] = [((), tree)]
    seen: set[int] = set()
    for _ in range(_MAX_DEPTH):
        inner = []
        for name, entry in level:
            if isinstance(entry, dict) and id(entry) not in seen:
                seen.add(id(entry))
                yield name, entry
                inner += [((*name, key), value) for key, value in entry.items() if isinstance(key, str)]
        level = inner


def _within(name: Name, names: Collection[Name]) -> list[Name]:
    """Returns those names that begin with a name, itself included."""
    return [other for other in names if other[: len(name)] == name]


def _tensors(entry: dict[Any, Any], source: str) -> dict[str, Tensor]:
    """Returns the tensors of an entry. A log line lists what else it holds."""
    other = {key: value for key, value in entry.items() if not (isinstance(key, str) and isinstance(value, Tensor))}
    shown = [f"{describe(key)}: {describe(value)}" for key, value in other.items()]
    unread = [value.name for value in other.values() if isinstance(value, Unknown)]
    if any(name.startswith(_OTHER_TENSORS) for name in unread):
        raise ValueError(
            f"{source}: tensors of some kinds are not read: {listing(shown)}. Save the weights as dense tensors of "
            "plain dtypes"
        )
    if other:
        logger.info("%s: leaves out what is no tensor: %s", source, listing(shown))
    return {key: value for key, value in entry.items() if key not in other}


def _content(tree: Any) -> str:
    if isinstance(tree, dict):
        return listing([f"{describe(key)}: {describe(value)}" for key, value in tree.items()]) or "nothing"
    return "a single tensor" if isinstance(tree, Tensor) else describe(tree)


def _text(name: Name) -> str:
    return "/".join(name)


def _shown(name: Name) -> str:
    return _text(name)[:100] if name else "the whole content"


def _list(names: Collection[Name]) -> str:
    return listing([_shown(name) for name in names]) or "none"
