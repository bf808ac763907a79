"""Reading and writing of files with arrays under torch's names."""

import math
import zipfile
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from mtl_jax.runtime import atomic_files
from mtl_jax.weights import entries, torch_file
from mtl_jax.weights.archives import check_allowance, check_count, read_member
from mtl_jax.weights.prefixes import strip_wrappers

WRITABLE = (".safetensors", ".npz")
_FORMS = "torch (zip or legacy), safetensors and npz"
_TORCH, _SAFETENSORS, _NPZ = "torch", "safetensors", "npz"
_MEMBER = ".npy"  # suffix of the members of an npz file


def read_arrays(path: str | Path, entry: str = "") -> dict[str, np.ndarray]:
    """Returns {name: array} of a torch, safetensors or npz file. The content tells the form, whatever the suffix.

    The weights may lie inside entries of a training checkpoint with the usual names (state_dict, model, ...). If all
    names begin with "module." or "_orig_mod.", these prefixes are removed. Log lines say so.

    Args:
        path: Path of the file.
        entry: Entry of a training checkpoint that holds the weights, "state_dict_ema" for example; empty = the only
            one, or the plain weights beside averaged ones.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file has another form, is damaged, asks for much more memory than its size, or holds no weights
            or several.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}; give the path of a {_FORMS} file")
    form = _form(path)
    if form == _TORCH:
        with torch_file.opened(path) as checkpoint:
            arrays = checkpoint.arrays(entries.choose(checkpoint.tree, entry, path))
    elif entry:
        raise ValueError(f"{path} is a {form} file, which has no entries; leave the name of the entry, {entry!r}, out")
    else:
        arrays = _read_flat(path, form)
    if not arrays:
        raise ValueError(f"{path} holds no arrays; save a model's state_dict")
    return strip_wrappers(arrays, str(path))


def _form(path: Path) -> str:
    """Returns the form of a file by its content.

    Raises:
        ValueError: The content is of no form that is read.
    """
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{" or path.suffix.lower() == ".safetensors":  # behind the length of the header
        return _SAFETENSORS
    if start[:1] == b"\x80":  # of a pickle
        return _TORCH
    content = f"begins with {start!r}" if start else "is empty"
    if start[:4] == b"PK\3\4":
        try:
            with zipfile.ZipFile(path) as archive:
                check_count(archive, path)
                names = archive.namelist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise ValueError(f"{path} is a damaged zip archive: {error}; copy or download it again") from error
        if any(name.split("/", 1)[-1] == torch_file.PICKLE for name in names):
            return _TORCH
        if all(name.endswith(_MEMBER) for name in names):
            return _NPZ
        content = f"is a zip archive of {', '.join(name[:80] for name in names[:5])}"
    raise ValueError(f"{path} {content}; the forms that are read are {_FORMS}")


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a .safetensors or .npz file. A crash never leaves an incomplete file under this name.

    Args:
        path: Path of the file.
        arrays: {name: array}.

    Raises:
        ValueError: The path has another suffix.
        OSError: The file cannot be written; the message names it.
    """
    path = Path(path)
    if path.suffix not in WRITABLE:
        raise ValueError(f"{path} ends in {path.suffix!r}; {' and '.join(WRITABLE)} files are written")
    if path.suffix == ".safetensors":
        content = save({name: np.array(value, order="C") for name, value in arrays.items()})
    else:
        file = BytesIO()
        np.savez(file, allow_pickle=False, **arrays)
        content = file.getvalue()
    atomic_files.write(path, content)


def _read_flat(path: Path, form: str) -> dict[str, np.ndarray]:
    try:
        if form == _NPZ:
            return _read_npz(path)
        return {name: _plain(value) for name, value in load_file(path).items()}
    # AttributeError comes from dtypes that NumPy does not have.
    except AttributeError as error:
        raise ValueError(f"{path} holds numbers of a type that NumPy lacks ({error}); save float32") from error
    except (
        SafetensorError,
        zipfile.BadZipFile,
        zlib.error,
        ValueError,
        OSError,
        EOFError,
        MemoryError,
        RuntimeError,
    ) as error:
        raise ValueError(f"{path} cannot be read as {form}: {error}; make the file again") from error


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        check_allowance(sum(info.file_size for info in archive.infolist()), path)
        return {
            name.removesuffix(_MEMBER): _read_npy(read_member(archive, name, path), name) for name in archive.namelist()
        }


def _read_npy(content: bytes, name: str) -> np.ndarray:
    """Returns the array of a .npy file, once its header claims as many bytes as there are."""
    file = BytesIO(content)
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    claimed, size = math.prod(shape) * dtype.itemsize, len(content) - file.tell()
    if claimed != size and not dtype.hasobject:
        raise ValueError(f"the header of {name!r:.80} claims {claimed} bytes of numbers, and there are {size}")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _plain(value: np.ndarray) -> np.ndarray:
    """Converts bfloat16, which NumPy cannot store, to float32."""
    return value.astype(np.float32) if value.dtype.name == "bfloat16" else value
