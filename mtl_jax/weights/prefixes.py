"""Prefixes of names, which wrappers around a model and larger models add to the names of its arrays."""

import logging
import re
from collections import Counter
from collections.abc import Collection, Mapping

import numpy as np

from mtl_jax.runtime.messages import listing

logger = logging.getLogger(__name__)

# torch's DataParallel adds "module.", torch.compile "_orig_mod."; neither is the name of a part of the model.
_WRAPPER = re.compile(r"(?:(?:module|_orig_mod)\.){1,8}")
_PART = re.compile(r"(?:module|_orig_mod|model|backbone|encoder)\.")
_MAX_PARTS = 8

Arrays = dict[str, np.ndarray]


def strip_wrappers(arrays: Mapping[str, np.ndarray], source: str) -> Arrays:
    """Removes "module." and "_orig_mod." from the beginning of the names, if all names begin alike. A log line says so.

    Args:
        arrays: {name: array}.
        source: Where the arrays come from, for the log line.
    """
    first = _WRAPPER.match(next(iter(arrays), ""))
    prefix = first.group() if first else ""
    while prefix and not all(name.startswith(prefix) for name in arrays):
        prefix = prefix[: prefix[:-1].rfind(".") + 1]
    return strip_prefix(arrays, prefix, source) if prefix else dict(arrays)


def strip_prefix(arrays: Mapping[str, np.ndarray], prefix: str, source: str) -> Arrays:
    """Returns the arrays whose names begin with a prefix, without it. A log line lists those that are left out.

    Args:
        arrays: {name: array}.
        prefix: Beginning of names, "encoder_q." for example.
        source: Where the arrays come from, for messages.

    Raises:
        ValueError: No name begins with the prefix.
    """
    kept = {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
    if not kept:
        raise ValueError(f"{source}: no name begins with {prefix!r}; the names are {listing(list(arrays))}")
    rest = [name for name in arrays if not name.startswith(prefix)]
    left_out = f", and leaves out {len(rest)} arrays without it: {listing(rest)}" if rest else ""
    logger.info("%s: removes the prefix %s from %d names%s", source, prefix, len(kept), left_out)
    return kept


def fit_names(arrays: Mapping[str, np.ndarray], names: Collection[str], source: str) -> Arrays:
    """Removes the prefix that stands before the names of a model. A log line says which, and what is left out.

    A prefix consists of "module.", "_orig_mod.", "model.", "backbone." and "encoder.", in any order. The prefix that
    gives most names of the model is removed; none is removed where the names fit as well as they are.

    Args:
        arrays: {name: array}.
        names: Names of the model's arrays.
        source: Where the arrays come from, for messages.

    Raises:
        ValueError: Several prefixes fit equally well. The message lists them.
    """
    wanted = set(names)
    fitting = Counter(prefix for name in arrays for prefix in _prefixes(name) if name[len(prefix) :] in wanted)
    most = max(fitting.values(), default=0)
    best = [prefix for prefix, n in fitting.items() if n == most]
    if not best or "" in best:
        return dict(arrays)
    if len(best) > 1:
        raise ValueError(
            f"{source}: names begin with {' and with '.join(map(repr, sorted(best)))}, and after each "
            f"{most} of {len(wanted)} names of the model follow. Name the prefix to remove: "
            "--model.pretrained_prefix=PREFIX, or --prefix=PREFIX of `mtl convert`"
        )
    return strip_prefix(arrays, best[0], source)


def _prefixes(name: str) -> list[str]:
    """Returns the prefixes of a name, the empty one included."""
    ends = [0]
    while len(ends) <= _MAX_PARTS and (part := _PART.match(name, ends[-1])):
        ends.append(part.end())
    return [name[:end] for end in ends]
