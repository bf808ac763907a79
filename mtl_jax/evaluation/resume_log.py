"""A log of the finished images of a pass over a data set, from which an interrupted pass continues."""

import hashlib
import io
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from filelock import FileLock, Timeout

from mtl_jax.runtime import atomic_files

Entry = dict[str, dict[str, Any]]  # {name: {name: array}}
_HEAD = struct.Struct("<32sQI")  # head of a frame: digest of the key, length of the content, checksum of both
_FAST = 1  # zlib's level; at every level histograms of mostly zeros become small


class ResumeLog:
    """A file with an entry for each finished image; a killed process loses only the entry that it was writing.

    Args:
        path: The file.
        keys: For each image a text that names everything its entry depends on; entries with other keys do not count.

    Raises:
        ValueError: Another process is writing the file.
    """

    def __init__(self, path: Path, keys: Sequence[str]):
        self._path, self._lock = path, FileLock(f"{path}.lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise ValueError(f"another evaluation is writing {path}; wait until it has finished") from error
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]
        indices = {digest: index for index, digest in enumerate(self._digests)}
        self._places: dict[int, tuple[int, int]] = {}  # {index: (offset, length)}
        self._end = 0
        self._file: io.FileIO | None = None
        for offset, digest, length in self._frames():
            if digest in indices:
                self._places[indices[digest]] = (offset, length)
            self._end = offset + length

    def _frames(self) -> Iterator[tuple[int, bytes, int]]:
        """Yields (offset of the content, digest, length) of the whole frames in the file."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            while len(head := file.read(_HEAD.size)) == _HEAD.size:
                digest, length, checksum = _HEAD.unpack(head)
                content = file.read(min(length, self._path.stat().st_size))
                if len(content) < length or _checksum(digest, content) != checksum:
                    return  # a killed process was writing it, or the power failed
                yield file.tell() - length, digest, length

    def __iter__(self) -> Iterator[int]:
        """Returns an iterator over the images that were finished when the file was opened."""
        return iter(sorted(self._places))

    def __contains__(self, index: object) -> bool:
        return index in self._places

    def __len__(self) -> int:
        return len(self._places)

    def entries(self) -> Iterator[Entry]:
        """Yields the entries of the images that were finished when the file was opened, in their order."""
        if not self._places:
            return
        with self._path.open("rb") as file:
            for _, (offset, length) in sorted(self._places.items()):
                file.seek(offset)
                entry: Entry = {}
                with np.load(io.BytesIO(zlib.decompress(file.read(length)))) as arrays:
                    for name, value in arrays.items():
                        group, _, inner = name.partition("/")
                        entry.setdefault(group, {})[inner] = value
                yield entry

    def add(self, index: int, entry: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes the entry of an image that has just been finished.

        Args:
            index: Index of the image.
            entry: {name: {name: array}}.

        Raises:
            OSError: The file cannot be written; the message names it.
        """
        if self._file is None:
            self._file = io.FileIO(self._path, "r+" if self._path.exists() else "w")
            self._file.truncate(self._end)
            self._file.seek(self._end)
        arrays = io.BytesIO()
        np.savez(arrays, **{f"{group}/{name}": value for group, part in entry.items() for name, value in part.items()})
        content, digest = zlib.compress(arrays.getvalue(), _FAST), self._digests[index]
        frame = _HEAD.pack(digest, len(content), _checksum(digest, content)) + content
        atomic_files.append(self._file, frame, sync=False)  # what a power cut takes is computed again

    def delete(self) -> None:
        """Removes the file, after everything is finished."""
        self._close()
        self._path.unlink(missing_ok=True)
        Path(self._lock.lock_file).unlink(missing_ok=True)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._close()


def _checksum(digest: bytes, content: bytes) -> int:
    return zlib.crc32(content, zlib.crc32(digest))
