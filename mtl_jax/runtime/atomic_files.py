"""Writing of files so that a crash or a power cut damages nothing but, at most, the last appended entry.

A file system keeps new content and new names in memory for a while. `fsync` writes them to the disk: called on a file
its content, called on a folder the names in it.
"""

import errno
import json
import math
import os
import uuid
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any

# What opening or syncing a folder raises where a system or a file system does not offer it.
_NOT_OFFERED = {errno.EACCES, errno.EINVAL, errno.EISDIR, errno.ENOTSUP, errno.ENOSYS, errno.EPERM}


def write(path: Path, content: str | bytes, *, sync: bool = True) -> Path:
    """Writes a file under a temporary name and renames it, so that a crash never leaves an incomplete file.

    Args:
        path: The file. Its folder must exist.
        content: Text, which is written in UTF-8, or bytes.
        sync: True to wait until the file is on the disk, which takes milliseconds. False for one of thousands of files
            that can be made again: a power cut may leave the file empty.

    Returns:
        The path.

    Raises:
        OSError: the file cannot be written; the message names the file.
    """
    # Two processes that write one file must not write into each other's.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
        if sync:
            sync_folder(path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_json(path: Path, content: Any) -> Path:
    """Writes JSON that every program can read, see `json_text`."""
    return write(path, json_text(content, indent=1) + "\n")


def json_text(content: Any, *, indent: int | None = None) -> str:
    """Returns JSON that every program can read: numbers that are not finite, which JSON lacks, become null.

    Args:
        content: Dicts, lists, numbers and texts.
        indent: Number of spaces by which each level is indented; None = everything on one line.
    """
    return json.dumps(_finite(content), indent=indent, allow_nan=False)


def append(file: FileIO, data: bytes, *, sync: bool = True) -> None:
    """Appends data to an open file without a buffer.

    A buffered file would repeat a failed write when it is closed, with an error that does not name the file.

    Args:
        file: The file.
        data: What is appended.
        sync: True to wait until the data are on the disk, which takes milliseconds. False for frequent entries that can
            be computed again: a power cut may lose the last ones.

    Raises:
        OSError: the data cannot be written, for example because the disk is full; the message names the file.
    """
    left = memoryview(data)
    try:
        while left:
            left = left[file.write(left) :]
        if sync:
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file.name)) from error


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk; does nothing where folders cannot be synced.

    Raises:
        OSError: The disk fails.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NOT_OFFERED:
            raise


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
