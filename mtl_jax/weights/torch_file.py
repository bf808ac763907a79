"""Reading of torch checkpoints without torch: the zip format (torch 1.6 and later) and the older legacy format.

A checkpoint is a pickle, and a pickle can call any function that it names. This reader accepts only the names of
dictionaries, tensors and storages. It turns tensors and storages into plain descriptions while it reads the pickle, and
makes the arrays from the descriptions afterwards.
"""

import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

SUFFIXES = (".pth", ".pt", ".pth.tar")

_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of a legacy file
_LEGACY_VERSION = 1001
_BFLOAT16 = "bfloat16"  # unknown to numpy
_STORAGES = {
    "HalfStorage": "float16",
    "BFloat16Storage": _BFLOAT16,
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "CharStorage": "int8",
    "ShortStorage": "int16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
# Exceptions raised for damaged pickles and archives; this module itself raises ValueError.
_DAMAGE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    MemoryError,
    RuntimeError,
)


class _Storage(NamedTuple):
    """A block of numbers in the file."""

    dtype: str
    key: str
    size: int


class _Tensor(NamedTuple):
    """A view into a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def load(path: str | Path) -> Any:
    """Reads a file of `torch.save`, with a NumPy array for every tensor; bfloat16 becomes float32.

    Nothing in the file is ever executed.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is no torch file, is damaged, or holds objects other than dictionaries, lists, numbers,
            text and tensors of plain dtypes. The message names the object.
    """
    path = Path(path)
    with path.open("rb") as file:
        try:
            packed = file.read(4) == b"PK\3\4"
            file.seek(0)
            return _read_zip(file) if packed else _read_legacy(file)
        except _DAMAGE as error:
            raise ValueError(f"{path} cannot be read as a torch checkpoint: {error}") from error


class _Unpickler(pickle.Unpickler):
    """An unpickler that makes descriptions of tensors and refuses all other objects.

    Accepted names stand for text, bound methods and a class, none of which has attributes that a pickle could change.

    Attributes:
        storages: {key: storage} of all storages to which the pickle refers.
    """

    def __init__(self, file: Any):
        super().__init__(file, encoding="utf-8")  # encoding of text pickled by Python 2
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        functions = {
            "_rebuild_tensor": self._tensor,
            "_rebuild_tensor_v2": self._tensor,
            "_rebuild_parameter": self._parameter,
        }
        if module == "torch._utils" and name in functions:
            return functions[name]
        raise ValueError(
            f"it holds a {module}.{name}, and only tensors of plain dtypes, numbers and text in dictionaries and lists "
            "are read. Where the file can be trusted, save the weights alone: torch.save(model.state_dict(), FILE)"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        """Returns the description of a storage.

        Args:
            pid: Tuple ("storage", type, key, device, number of elements). Legacy files add a view, which is None since
                torch 0.4.
        """
        match pid:
            case ("storage", str(dtype), str(key), _, int(size), *view) if view in ([], [None]):
                if dtype in _STORAGES.values():
                    return self.storages.setdefault(key, _Storage(dtype, key, size))
        raise ValueError(f"it describes a storage as {pid!r:.80}")

    def _tensor(self, *arguments: Any) -> _Tensor:
        match arguments:
            case (_Storage() as storage, int(offset), tuple(shape), tuple(strides), *_):
                sizes = (offset, *shape, *strides)
                if len(shape) == len(strides) and all(isinstance(n, int) and n >= 0 for n in sizes):
                    return _Tensor(storage, offset, shape, strides)
        raise ValueError(f"it describes a tensor as {arguments!r:.80}")

    def _parameter(self, tensor: Any, *_: Any) -> Any:
        return tensor


def _read_zip(file: BinaryIO) -> Any:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.split("/", 1)[-1] == "data.pkl"]
        if len(pickles) != 1:
            raise ValueError(f"the archive holds no data.pkl but {', '.join(names[:5]) or 'nothing'}")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("it was written on a big-endian machine")
        with archive.open(pickles[0]) as data:
            unpickler = _Unpickler(data)
            tree = unpickler.load()
        blocks = {key: archive.read(f"{root}data/{key}") for key in unpickler.storages}
    return _with_arrays(tree, blocks)


def _read_legacy(file: BinaryIO) -> Any:
    """Reads the legacy format.

    The file consists of five pickles (a number, a version, the machine, the tree and the keys), followed by the length
    and the bytes of every storage.
    """
    if (magic := _Unpickler(file).load()) != _MAGIC:
        raise ValueError(f"it begins with {magic!r:.40} and not with torch's number")
    if (version := _Unpickler(file).load()) != _LEGACY_VERSION:
        raise ValueError(f"it has the format {version!r:.40}; {_LEGACY_VERSION} is known")
    if not _Unpickler(file).load()["little_endian"]:
        raise ValueError("it was written on a big-endian machine")
    unpickler = _Unpickler(file)
    tree = unpickler.load()
    blocks = {}
    for key in _Unpickler(file).load():
        storage = unpickler.storages[key]
        (size,) = struct.unpack("<q", file.read(8))
        if size != storage.size:
            raise ValueError(f"storage {key} has {size} elements instead of {storage.size}")
        blocks[key] = file.read(size * _dtype(storage).itemsize)
    return _with_arrays(tree, blocks)


def _with_arrays(tree: Any, blocks: Mapping[str, bytes]) -> Any:
    """Returns the tree with arrays in place of descriptions."""
    if isinstance(tree, _Tensor):
        return _array(tree, blocks[tree.storage.key])
    if isinstance(tree, dict):
        return {key: _with_arrays(value, blocks) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_with_arrays(value, blocks) for value in tree)
    return tree


def _array(tensor: _Tensor, block: bytes) -> np.ndarray:
    """Returns a copy of the tensor's part of its storage, in C order."""
    storage, dtype = tensor.storage, _dtype(tensor.storage)
    if len(block) != storage.size * dtype.itemsize:
        raise ValueError(f"storage {storage.key} has {len(block)} bytes instead of {storage.size * dtype.itemsize}")
    empty = 0 in tensor.shape
    last = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))
    if not empty and last >= storage.size:
        raise ValueError(f"a tensor {tensor.shape} reaches beyond its storage of {storage.size} elements")
    flat = np.frombuffer(block, dtype)[0 if empty else tensor.offset :]
    strides = tuple(stride * dtype.itemsize for stride in tensor.strides)
    view = np.lib.stride_tricks.as_strided(flat, tensor.shape, strides, writeable=False)
    if storage.dtype == _BFLOAT16:  # the upper half of a float32
        return np.asarray(view.astype(np.uint32, order="C") << 16).view(np.float32)
    return view.copy()


def _dtype(storage: _Storage) -> np.dtype:
    name = "uint16" if storage.dtype == _BFLOAT16 else storage.dtype
    return np.dtype(name).newbyteorder("<")
