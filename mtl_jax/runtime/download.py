"""Files from the network: whole and verified under their name, or not there at all."""

import hashlib
import http.client
import os
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

_CHUNK = 1 << 20
_TIMEOUT = 60  # seconds without a byte


class DownloadError(OSError):
    """The network, or the server, did not give the file."""


def cache_dir() -> Path:
    """Where published weights and compiled programs are kept: $MTL_JAX_CACHE, by default ~/.cache/mtl_jax."""
    return Path(os.environ.get("MTL_JAX_CACHE") or "~/.cache/mtl_jax").expanduser()


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def retrieve(url: str, path: Path, verify: Callable[[Path], None] | None = None) -> None:
    """Downloads a file. It appears under its name in one move; processes that do the same do not disturb each other.

    Args:
        verify: raises for a file, given under a temporary name, that is not the one expected.

    Raises:
        DownloadError: the file cannot be had; nothing is left behind.
    """
    partial = path.with_name(f"incomplete.{uuid.uuid4().hex[:8]}.{path.name}")
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _stream(url, partial, path.name)
        except (OSError, http.client.HTTPException) as error:
            raise DownloadError(f"cannot download {path.name} from {url}: {error}") from error
        if verify is not None:
            verify(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _stream(url: str, path: Path, name: str) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "Mozilla/5.0"})
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response, path.open("xb") as file:
        kind = response.headers.get_content_type()
        if kind == "text/html":
            raise OSError("the server answered with a web page instead of the file (moved, or a download limit)")
        length = response.headers.get("Content-Length")
        total = int(length) if length is not None else None
        with tqdm(desc=f"downloading {name}", total=total, unit="B", unit_scale=True) as bar:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and path.stat().st_size != total:
        raise OSError(f"the connection broke after {path.stat().st_size} of {total} bytes")
