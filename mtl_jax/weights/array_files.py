"""Reading and writing of files with arrays under torch's names."""

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
_WRAPPERS = ("state_dict", "model")  # keys under which training scripts store the weights, beside the rest of the state
_PARALLEL = "module."  # prefix that torch's DataParallel adds to every name


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Returns {name: array} of a .safetensors, .npz or torch file.

    The weights may be inside `{"state_dict": ...}` or `{"model": ...}`. If all names begin with "module.", this prefix
    is removed.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is of another kind, is damaged, or holds other values than named arrays.
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
    """Writes a .safetensors or .npz file. A crash never leaves an incomplete file under this name.

    Args:
        path: Path of the file.
        arrays: {name: array}.

    Raises:
        ValueError: The path has another suffix.
    """
    path = Path(path)
    if path.suffix not in WRITABLE:
        raise ValueError(f"{path} ends in {path.suffix!r}; {' and '.join(WRITABLE)} files are written")
    partial = path.with_name(f"incomplete.{path.name}")  # keeps the suffix, because savez would add a missing one
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
    # TypeError comes from an .npy file under the wrong name, AttributeError from dtypes that NumPy does not have.
    except (SafetensorError, ValueError, OSError, EOFError, zipfile.BadZipFile, TypeError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read as {path.suffix}: {error}; make the file again") from error
    raise ValueError(f"{path} is a {path.suffix or 'nameless'} file; weights are read from {', '.join(_READABLE)}")


def _plain(value: np.ndarray) -> np.ndarray:
    """Converts bfloat16, which NumPy cannot store, to float32."""
    return value.astype(np.float32) if value.dtype.name == "bfloat16" else value


def _state_dict(tree: Any, path: Path) -> dict[str, np.ndarray]:
    """Returns the named arrays of a checkpoint, which may be inside wrappers."""
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
