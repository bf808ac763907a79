"""Writing of files so that a crash damages nothing but, at most, the last appended entry."""

import json
import math
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any


def write(path: Path, content: str | bytes) -> Path:
    """Writes a file under a temporary name and renames it, so that a crash never leaves an incomplete file.

    Returns:
        The path.

    Raises:
        OSError: the file cannot be written; the message names the file.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        return temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_json(path: Path, content: Any) -> Path:
    """Writes JSON that every program can read: numbers that are not finite, which JSON lacks, become null."""
    return write(path, json.dumps(_finite(content), indent=1, allow_nan=False) + "\n")


def append(file: FileIO, data: bytes) -> None:
    """Appends data to an open file without a buffer.

    A buffered file would repeat a failed write when it is closed, with an error that does not name the file.

    Raises:
        OSError: the data cannot be written, for example because the disk is full; the message names the file.
    """
    left = memoryview(data)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file.name)) from error


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
