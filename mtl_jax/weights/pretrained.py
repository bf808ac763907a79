"""Weights of pretrained backbones: files of arrays under torch's names."""

import re
from collections.abc import Collection
from pathlib import Path

import numpy as np

from mtl_jax.weights.array_files import read_arrays
from mtl_jax.weights.prefixes import fit_names, strip_prefix

_WRAPPERS = re.compile(r"(?:(?:module|_orig_mod|model)\.){0,8}")
_HEADS = ("decoder.", "decoders.", "heads.")


def read_pretrained(
    path: Path, *, names: Collection[str] = (), entry: str = "", prefix: str = ""
) -> dict[str, np.ndarray]:
    """Returns {torch key: array} of a file with a pretrained backbone.

    Args:
        path: A torch, safetensors or npz file.
        names: Torch keys of the backbone. If they are given, a prefix before the names in the file is removed
            (`fit_names`).
        entry: Entry of a training checkpoint that holds the weights (`read_arrays`).
        prefix: Prefix that is removed instead; arrays whose names begin otherwise are left out.

    Raises:
        ValueError: The file is damaged, has several or no weights, or holds a whole model of this package.
    """
    arrays = read_arrays(path, entry)
    if prefix:
        return strip_prefix(arrays, prefix, str(path))
    if _is_whole_model(arrays):
        raise ValueError(
            f"{path} holds a whole model, not a backbone. To train on with all of it, make a work directory: "
            "mtl convert FILE WORKDIR --config RECIPE. To take the backbone alone, name the "
            "beginning of its names: --model.pretrained_prefix=backbone."
        )
    return fit_names(arrays, names, str(path))


def _is_whole_model(names: Collection[str]) -> bool:
    """Returns whether names are those of a model of this package, with or without prefixes of wrappers."""
    keys = [_WRAPPERS.sub("", name, count=1) for name in names]
    return all(key.startswith(("backbone.", *_HEADS)) for key in keys) and any(key.startswith(_HEADS) for key in keys)
