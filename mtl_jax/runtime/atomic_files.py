"""Files that a crash leaves whole, or whole but for their last entry."""

import json
import math
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any


def write(path: Path, content: str | bytes) -> Path:
    """Writes a file under another name first, so that a crash never leaves half of it; returns its path.

    Raises:
        OSError: it cannot be written; the message names the file.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        return temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_json(path: Path, content: Any) -> Path:
    """Writes JSON that every program reads: numbers that are not finite, for which it has no words, become null."""
    return write(path, json.dumps(_finite(content), indent=1, allow_nan=False) + "\n")


def append(file: FileIO, data: bytes) -> None:
    """Writes to an open file without a buffer, whose content would fail again, and without the name, when it is closed.

    Raises:
        OSError: it cannot be written, the disk is full; the message names the file.
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
