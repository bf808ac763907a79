"""The cache of compiled programs. JAX fills it, and this module removes entries that are damaged."""

import contextlib
import logging
import re
import warnings
import zlib
from pathlib import Path
from typing import Any

import jax

_WARNING = re.compile(r"Error reading persistent compilation cache entry for '(?P<program>[^']+)'")

logger = logging.getLogger(__name__)


def keep(folder: Path) -> None:
    """Keeps the programs that this process compiles in a folder, for itself and for later processes.

    JAX warns of a damaged entry, compiles the program, and does not replace the entry, so that every later process
    compiles the program as well. After this call a damaged entry is removed when JAX warns of it, and JAX stores the
    program again. A log line says so. Where Python ignores warnings, damaged entries stay.

    Args:
        folder: Folder of the entries, made where it is missing.
    """
    jax.config.update("jax_compilation_cache_dir", str(folder))
    show = warnings.showwarning

    def remove_or_show(message: Warning | str, *where: Any, **options: Any) -> None:
        warned = _WARNING.match(str(message))
        removed = _remove_damaged(folder, warned["program"]) if warned else []
        if removed:
            listed = ", ".join(path.name for path in removed)
            logger.warning("%s: damaged compiled programs are compiled and stored again: %s", folder, listed)
        else:
            show(message, *where, **options)

    warnings.showwarning = remove_or_show


def _remove_damaged(folder: Path, program: str) -> list[Path]:
    """Removes the damaged entries of a program, and returns the paths of those that could be removed."""
    removed = []
    for path in folder.glob(f"{program}-*-cache"):
        with contextlib.suppress(OSError):  # another process has removed it, or the folder cannot be written
            if not _is_whole(path):
                path.unlink()
                removed.append(path)
    return removed


def _is_whole(path: Path) -> bool:
    """Returns True if an entry can be unpacked.

    JAX packs with zlib, which has a checksum. Where the package zstandard is installed, and from Python 3.14 on, JAX
    packs with Zstandard instead. zlib cannot unpack these entries, so all of a program's entries count as damaged.

    Raises:
        OSError: The entry cannot be read.
    """
    try:
        zlib.decompress(path.read_bytes())
    except zlib.error:
        return False
    return True
