"""The file of a stored configuration: JSON with a checksum, which tells of damage and of edits."""

import hashlib
import json
from pathlib import Path
from typing import Any

from mtl_jax.runtime import atomic_files

_CHECKSUM = "sha256"  # field with the SHA-256 of the other fields
_REMEDY = (
    "bring the file back from a copy; or continue the training with its old command and --allow_config_change, which "
    "writes the file anew"
)


def write(path: Path, text: str) -> None:
    """Writes a configuration, JSON of one object, with its checksum."""
    content = json.loads(text)
    atomic_files.write(path, json.dumps({**content, _CHECKSUM: _checksum(content)}, indent=2) + "\n")


def read(path: Path) -> str:
    """Returns the JSON of a stored configuration without its checksum.

    Configurations of older versions have no checksum, and are not compared with it.

    Raises:
        ValueError: The file is damaged.
    """
    data = path.read_bytes()
    if not data.strip(b"\0 \n"):
        raise ValueError(f"{path} is {'filled with zeros' if data else 'empty'}, as after a power cut; {_REMEDY}")
    try:
        content = json.loads(data)
        stored = [content.pop(_CHECKSUM)] if isinstance(content, dict) and _CHECKSUM in content else []
        text, checksum = json.dumps(content), _checksum(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}; {_REMEDY}") from error
    if stored not in ([], [checksum]):
        raise ValueError(
            f"{path} has changed since it was written: {_CHECKSUM!r} there is not the SHA-256 of the other fields. If "
            f"somebody edited the file on purpose, delete the field {_CHECKSUM!r}; else {_REMEDY}"
        )
    return text


def _checksum(content: Any) -> str:
    """Returns the SHA-256 of what is stored, whatever the order of the fields and the spaces between them."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
