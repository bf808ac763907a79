"""Reading of torch checkpoints without torch: the zip format (torch 1.6 and later) and the older legacy format.

A checkpoint is a pickle beside the numbers of its tensors. The pickle is read first, with a description in place of
every tensor and a placeholder in place of every object that is not plain. Then the caller chooses tensors, and only
their numbers are read.
"""

import math
import mmap
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from mtl_jax.weights import inert_pickle
from mtl_jax.weights.archives import check_allowance, read_member
from mtl_jax.weights.inert_pickle import Function, Unknown, describe

PICKLE = "data.pkl"  # name of the pickle in the zip format, inside one folder

_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of a legacy file
_LEGACY_VERSION = 1001
_BFLOAT16 = "bfloat16"  # unknown to numpy
_STORAGES = {
    "HalfStorage": "float16",
    "BFloat16Storage": _BFLOAT16,
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "CharStorage": "int8",
    "ShortStorage": "int16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    # No tensor over these is read. A legacy file cannot be read without the sizes of all storages.
    "UntypedStorage": "uint8",
    "storage.UntypedStorage": "uint8",
    "QInt8Storage": "int8",
    "QUInt8Storage": "uint8",
    "QInt32Storage": "int32",
}
_MAX_AXES = 64  # of numpy and of torch
_MAX_NUMBER = 2**60  # elements of an axis or a storage, and steps between them
_MAX_KEY = 100  # characters of a storage's name
# Exceptions raised for damaged pickles and archives; this module itself raises ValueError.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    MemoryError,
    RuntimeError,
)


class Storage(NamedTuple):
    """A block of numbers in the file."""

    dtype: str
    key: str
    size: int

    def numpy(self) -> np.dtype:
        return np.dtype("uint16" if self.dtype == _BFLOAT16 else self.dtype).newbyteorder("<")

    def nbytes(self) -> int:
        return self.size * self.numpy().itemsize


class Tensor(NamedTuple):
    """A description of a tensor: a view into a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Checkpoint:
    """An open checkpoint.

    Attributes:
        tree: The content, with a `Tensor` for every tensor and an `Unknown` for every object that is not plain.
    """

    def __init__(self, path: Path, tree: Any, blocks: Callable[[str], bytes]):
        self.tree, self._path, self._blocks = tree, path, blocks

    def arrays(self, tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """Reads tensors of this checkpoint; bfloat16 becomes float32.

        Raises:
            ValueError: A tensor reaches beyond its storage, a storage is incomplete, or the tensors take more memory
                than the file's allowance.
        """
        with _reading(self._path):
            check_allowance(sum(_check(name, tensor) for name, tensor in tensors.items()), self._path)
            by_storage: dict[Storage, list[str]] = {}
            for name, tensor in tensors.items():
                by_storage.setdefault(tensor.storage, []).append(name)
            # Storages may overlap in a spoilt file, so their sum is not bounded by the size of the file.
            check_allowance(sum(storage.nbytes() for storage in by_storage), self._path)
            arrays: dict[str, np.ndarray] = {}
            for storage, names in by_storage.items():
                block = self._blocks(storage.key)
                if len(block) != storage.nbytes():
                    raise ValueError(
                        f"storage {storage.key!r} has {len(block)} bytes instead of {storage.nbytes()} "
                        f"({names[0]!r:.80} lies there)"
                    )
                arrays |= {name: _array(tensors[name], block) for name in names}
            return {name: arrays[name] for name in tensors}


@contextmanager
def opened(path: str | Path) -> Iterator[Checkpoint]:
    """Opens a file of `torch.save`. Nothing in the file is ever executed.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is no torch file, or is damaged.
    """
    path = Path(path)
    with path.open("rb") as file:
        with _reading(path):
            packed = file.read(4) == b"PK\3\4"
            file.seek(0)
            archive = zipfile.ZipFile(file) if packed else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with archive:
            with _reading(path):
                parts = _open_zip(archive, path) if isinstance(archive, zipfile.ZipFile) else _open_legacy(archive)
            yield Checkpoint(path, *parts)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns the errors of a damaged file into one that names the file."""
    try:
        yield
    except _DAMAGE as error:
        text = str(error) or type(error).__name__
        raise ValueError(f"{path} cannot be read as a torch checkpoint: {text}") from error


class _Pickle:
    """Reads pickles with tensors.

    Attributes:
        storages: {key: storage} of all storages to which the pickles refer.
    """

    def __init__(self) -> None:
        self.storages: dict[str, Storage] = {}
        tensor, first = Function(_tensor), Function(lambda data, *_: data)
        self._known = {f"torch.{name}": dtype for name, dtype in _STORAGES.items()} | {
            "torch._utils._rebuild_tensor": tensor,
            "torch._utils._rebuild_tensor_v2": tensor,
            "torch._utils._rebuild_parameter": first,
            "torch._utils._rebuild_parameter_with_state": first,
            "torch._tensor._rebuild_from_type_v2": Function(_rebuilt),
        }

    def load(self, source: IO[bytes] | mmap.mmap) -> Any:
        return inert_pickle.load(source, self._known, self._storage)

    def _storage(self, pid: Any) -> Any:
        """Returns the description of a storage, or a placeholder for another object.

        Args:
            pid: Tuple ("storage", type, key, device, number of elements). Legacy files add a view, which is None since
                torch 0.4. They also have ("module", class, file, source) for whole modules.
        """
        match pid:
            case ("storage", str(dtype), str(key), _, int(size), *view) if view in ([], [None]):
                if dtype in _STORAGES.values() and len(key) <= _MAX_KEY and 0 <= size < _MAX_NUMBER:
                    storage = Storage(dtype, key, size)
                    if self.storages.setdefault(key, storage) != storage:
                        raise ValueError(f"it describes storage {key!r} in two ways")
                    return storage
            case ("storage" | "module", Unknown() as kind, *_):
                return kind
        shown = ", ".join(map(describe, pid[:8])) if isinstance(pid, tuple) else describe(pid)
        raise ValueError(f"it describes a storage as ({shown})")


def _tensor(*arguments: Any) -> Tensor | Unknown:
    match arguments:
        case (Storage() as storage, int(offset), tuple(shape), tuple(strides), *_):
            if len(shape) == len(strides) <= _MAX_AXES and all(
                isinstance(n, int) and 0 <= n < _MAX_NUMBER for n in (offset, *shape, *strides)
            ):
                return Tensor(storage, offset, shape, strides)
        case (Unknown() as storage, *_):
            return Unknown(f"tensor of {storage.name}")
    raise ValueError(f"it describes a tensor as ({', '.join(map(describe, arguments[:8]))})")


def _rebuilt(function: Any, _: Any, arguments: Any, *__: Any) -> Any:
    """Returns a tensor that has attributes or is of a subclass."""
    if isinstance(function, Function) and isinstance(arguments, tuple):
        return function.call(*arguments)
    return Unknown(describe(function))


def _open_zip(archive: zipfile.ZipFile, path: Path) -> tuple[Any, Callable[[str], bytes]]:
    """Returns the content of an archive, and a function that reads a storage by its key."""
    names = archive.namelist()
    pickles = [name for name in names if name.split("/", 1)[-1] == PICKLE]
    if len(pickles) != 1:
        shown = ", ".join(name[:80] for name in names[:5]) or "nothing"
        raise ValueError(f"the archive holds {len(pickles) or 'no'} {PICKLE} instead of one; it holds {shown}")
    root = pickles[0].removesuffix(PICKLE)
    if f"{root}byteorder" in names and read_member(archive, f"{root}byteorder", path) != b"little":
        raise ValueError("it was written on a big-endian machine")
    tree = _Pickle().load(BytesIO(read_member(archive, pickles[0], path)))
    return tree, lambda key: read_member(archive, f"{root}data/{key}", path)


def _open_legacy(data: mmap.mmap) -> tuple[Any, Callable[[str], bytes]]:
    """Returns the content of a legacy file, and a function that reads a storage by its key.

    The file consists of five pickles (a number, a version, the machine, the tree and the keys), followed by the length
    and the bytes of every storage.
    """
    pickles = _Pickle()
    if (magic := pickles.load(data)) != _MAGIC:
        raise ValueError(f"it begins with {describe(magic)} and not with torch's number")
    if (version := pickles.load(data)) != _LEGACY_VERSION:
        raise ValueError(f"it has the format {describe(version)}; {_LEGACY_VERSION} is known")
    if not pickles.load(data)["little_endian"]:
        raise ValueError("it was written on a big-endian machine")
    tree, keys = pickles.load(data), pickles.load(data)
    places, position = {}, data.tell()
    for key in keys:
        if not (isinstance(key, str) and key in pickles.storages):
            raise ValueError(f"it lists a storage {describe(key)} that no tensor has")
        storage = pickles.storages[key]
        (size,) = struct.unpack_from("<q", data, position)
        if size != storage.size:
            raise ValueError(f"storage {key!r} has {size} elements instead of {storage.size}")
        places[key] = slice(position + 8, position + 8 + storage.nbytes())
        position = places[key].stop
    if position > len(data):
        raise ValueError(f"it has {len(data)} bytes and needs {position}; copy or download it again")
    return tree, lambda key: data[places[key]]


def _check(name: str, tensor: Tensor) -> int:
    """Returns the size of a tensor's array in bytes, once the tensor lies inside its storage."""
    storage = tensor.storage
    elements = math.prod(tensor.shape)
    last = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))
    if elements and last >= storage.size:
        raise ValueError(f"{name!r:.80} of shape {tensor.shape} reaches beyond its storage of {storage.size} elements")
    return elements * (4 if storage.dtype == _BFLOAT16 else storage.numpy().itemsize)


def _array(tensor: Tensor, block: bytes) -> np.ndarray:
    """Returns a copy of the tensor's part of its storage, in C order."""
    dtype = tensor.storage.numpy()
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, np.float32 if tensor.storage.dtype == _BFLOAT16 else dtype)
    flat = np.frombuffer(block, dtype)[tensor.offset :]
    strides = tuple(stride * dtype.itemsize for stride in tensor.strides)
    view = np.lib.stride_tricks.as_strided(flat, tensor.shape, strides, writeable=False)
    if tensor.storage.dtype == _BFLOAT16:  # the upper half of a float32
        return np.asarray(view.astype(np.uint32, order="C") << 16).view(np.float32)
    return view.copy()
