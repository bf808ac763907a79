"""Files that are there whole or not at all."""

from pathlib import Path


def write(path: Path, content: str | bytes) -> Path:
    """Writes a file under another name first, so that a crash never leaves half of it; returns its path."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    return temporary.replace(path)
