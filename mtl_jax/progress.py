"""What an interrupted pass over a data set has finished."""

import hashlib
import io
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from mtl_jax import whole

Entry = dict[str, dict[str, Any]]  # {name: {name: array}}
_HEAD = struct.Struct("<QQ")  # index, length of what follows


class Progress:
    """Keeps an entry for each finished image in a file; a killed process leaves all but the one it was writing.

    Args:
        path: the file.
        key: tells what the entries follow from; the file starts anew where it has another.
    """

    def __init__(self, path: Path, key: str):
        self._path = path
        header = hashlib.sha256(key.encode()).digest()
        path.touch()
        self._file = path.open("r+b")
        if self._file.read(len(header)) != header:
            self._file.seek(0)
            self._file.truncate()
            whole.append(self._file, header)
        self._places: dict[int, tuple[int, int]] = {}  # {index: (offset, length)}
        end, size = len(header), path.stat().st_size
        while end + _HEAD.size <= size:
            self._file.seek(end)
            index, length = _HEAD.unpack(self._file.read(_HEAD.size))
            if end + _HEAD.size + length > size:
                break
            self._places[index] = (end + _HEAD.size, length)
            end += _HEAD.size + length
        self._file.truncate(end)

    def __iter__(self) -> Iterator[int]:
        """The images that were finished when the file was opened."""
        return iter(sorted(self._places))

    def __len__(self) -> int:
        return len(self._places)

    def entries(self) -> Iterator[Entry]:
        """The entries of those images, in their order.

        Raises:
            ValueError: the file is damaged.
        """
        for _, (offset, length) in sorted(self._places.items()):
            self._file.seek(offset)
            try:
                with np.load(io.BytesIO(self._file.read(length))) as arrays:
                    entry: Entry = {}
                    for name, value in arrays.items():
                        group, _, inner = name.partition("/")
                        entry.setdefault(group, {})[inner] = value
            except (ValueError, zipfile.BadZipFile) as error:
                raise ValueError(f"{self._path} is damaged ({error}); delete it to start anew") from error
            yield entry

    def add(self, index: int, entry: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes the entry of an image that has just been finished."""
        content = io.BytesIO()
        np.savez_compressed(
            content, **{f"{group}/{name}": value for group, part in entry.items() for name, value in part.items()}
        )
        data = content.getvalue()
        self._file.seek(0, io.SEEK_END)
        whole.append(self._file, _HEAD.pack(index, len(data)) + data)

    def delete(self) -> None:
        """Removes the file: everything is finished."""
        self._file.close()
        self._path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._file.close()
