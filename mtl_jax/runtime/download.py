"""Download of files, which appear under their name only when they are complete and verified."""

import hashlib
import http.client
import os
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

_CHUNK = 1 << 20
_TIMEOUT = 60  # seconds without data until a download fails


class DownloadError(OSError):
    """An error of the network or of the server during a download."""


def cache_dir() -> Path:
    """Returns the folder of published weights and compiled programs: $MTL_JAX_CACHE, by default ~/.cache/mtl_jax."""
    return Path(os.environ.get("MTL_JAX_CACHE") or "~/.cache/mtl_jax").expanduser()


def sha256(path: Path) -> str:
    """Computes the SHA-256 of a file as a hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def retrieve(url: str, path: Path, verify: Callable[[Path], None] | None = None) -> None:
    """Downloads a file under a temporary name and renames it when it is complete.

    Several processes can download the same file at the same time.

    Args:
        url: Address of the file.
        path: Path of the downloaded file.
        verify: Function that receives the path of the complete file under its temporary name, and raises an exception
            if it is not the expected file. None accepts every file.

    Raises:
        DownloadError: the file cannot be downloaded; no incomplete file is left behind.
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
