"""Files with arrays under torch's names."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from mtl_jax.weights import torch_file

WRITABLE = (".safetensors", ".npz")
_READABLE = (*WRITABLE, *torch_file.SUFFIXES)
_WRAPPERS = ("state_dict", "model")  # under which training scripts keep the weights beside the rest of their state
_PARALLEL = "module."  # what torch's DataParallel puts before every name


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """{name: array} of a .safetensors, .npz or torch file.

    Weights are found inside `{"state_dict": ...}` and `{"model": ...}`; where all names begin with "module.", they lose
    it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, a damaged one, or one that holds something else than named arrays.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}; give the path of a file ({', '.join(_READABLE)})")
    if path.name.endswith(torch_file.SUFFIXES):
        arrays = _state_dict(torch_file.load(path), path)
    else:
        arrays = _read_flat(path)
    if not arrays:
        raise ValueError(f"{path} holds no arrays; save a model's state_dict")
    if all(name.startswith(_PARALLEL) for name in arrays):
        return {name.removeprefix(_PARALLEL): value for name, value in arrays.items()}
    return arrays


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a .safetensors or .npz file, whole or not at all.

    Raises:
        ValueError: another suffix.
    """
    path = Path(path)
    if path.suffix not in WRITABLE:
        raise ValueError(f"{path} ends in {path.suffix!r}; {' and '.join(WRITABLE)} files are written")
    partial = path.with_name(f"incomplete.{path.name}")  # with the suffix, which savez would add
    if path.suffix == ".safetensors":
        save_file({name: np.array(value, order="C") for name, value in arrays.items()}, partial)
    else:
        np.savez(partial, allow_pickle=False, **arrays)
    partial.replace(path)


def _read_flat(path: Path) -> dict[str, np.ndarray]:
    try:
        if path.suffix == ".safetensors":
            return {name: _plain(value) for name, value in load_file(path).items()}
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                return dict(arrays)
    # The last two: an .npy file under the wrong name, and dtypes that numpy has no name for.
    except (SafetensorError, ValueError, OSError, EOFError, zipfile.BadZipFile, TypeError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read as {path.suffix}: {error}; make the file again") from error
    raise ValueError(f"{path} is a {path.suffix or 'nameless'} file; weights are read from {', '.join(_READABLE)}")


def _plain(value: np.ndarray) -> np.ndarray:
    """bfloat16, which numpy cannot store, as float32."""
    return value.astype(np.float32) if value.dtype.name == "bfloat16" else value


def _state_dict(tree: Any, path: Path) -> dict[str, np.ndarray]:
    """The named arrays of a checkpoint, wherever it keeps them."""
    while isinstance(tree, dict) and (inner := [tree[k] for k in _WRAPPERS if isinstance(tree.get(k), dict)]):
        tree = inner[0]
    if not isinstance(tree, dict):
        raise ValueError(f"{path} holds {_describe(tree)} instead of named arrays; save a state_dict")
    other = {k: value for k, value in tree.items() if not (isinstance(k, str) and isinstance(value, np.ndarray))}
    if other:
        found = ", ".join(f"{name!r}: {_describe(value)}" for name, value in list(other.items())[:10])
        raise ValueError(
            f"{path} holds more than named arrays ({found}). Save the state_dict by itself, or under the name "
            f"{' or '.join(map(repr, _WRAPPERS))}"
        )
    return tree


def _describe(value: Any) -> str:
    size = f" of {len(value)}" if isinstance(value, dict | list | tuple) else ""
    return f"{type(value).__name__}{size}"
