"""Files that a crash leaves whole, or whole but for their last entry."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO


def write(path: Path, content: str | bytes) -> Path:
    """Writes a file under another name first, so that a crash never leaves half of it; returns its path."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    return temporary.replace(path)


def write_json(path: Path, content: Any) -> Path:
    """Writes JSON that every program reads: numbers that are not finite, for which it has no words, become null."""
    return write(path, json.dumps(_finite(content), indent=1, allow_nan=False) + "\n")


def append(file: BinaryIO, data: bytes) -> None:
    """Writes to the end of an open file at once.

    Raises:
        OSError: it cannot be written, the disk is full; the message names the file.
    """
    try:
        file.write(data)
        file.flush()
    except OSError as error:
        raise OSError(error.errno, error.strerror, file.name) from error


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
