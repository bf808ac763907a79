"""Comparison of the arrays in a checkpoint with those of a model, by names and shapes."""

from collections.abc import Collection
from typing import Any

import orbax.checkpoint as ocp


def parts(tree: Any) -> set[str]:
    """Returns the names of the parts that arrays, or the metadata of a checkpoint, consist of."""
    return set(map(_part, _shapes(tree)))


def differences(stored: Any, wanted: Any, *, in_part: bool, passed_over: Collection[int] = ()) -> list[str]:
    """Returns a line for every array of a checkpoint that is missing, unknown or of another shape.

    Args:
        stored: Metadata of the arrays in the checkpoint.
        wanted: Arrays that the model needs, which may be abstract.
        in_part: Parts of the checkpoint that are not wanted, such as the optimiser's state, do not count.
        passed_over: Parts that do not count on either side.
    """
    there, needed = _shapes(stored), _shapes(wanted)
    counted = (parts(wanted) if in_part else parts(wanted) | parts(stored)) - set(map(str, passed_over))
    there, needed = ({key: shape for key, shape in of.items() if _part(key) in counted} for of in (there, needed))
    problems = [f"{key} is only in the checkpoint" for key in there if key not in needed]
    problems += [f"{key} is missing in the checkpoint" for key in needed if key not in there]
    return problems + [
        f"{key} is {there[key]} in the checkpoint, {needed[key]} in the model"
        for key in needed
        if key in there and there[key] != needed[key]
    ]


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    flat = ocp.tree.to_flat_dict(getattr(tree, "tree", tree))
    return {".".join(map(str, path)): tuple(leaf.shape) for path, leaf in flat.items()}


def _part(key: str) -> str:
    """Returns the first name in a key, which tells model, optimiser, balancing method and average apart."""
    return key.partition(".")[0]
