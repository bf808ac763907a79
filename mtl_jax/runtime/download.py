"""Download of files over https, which appear under their name only when they are complete and verified."""

import contextlib
import hashlib
import http.client
import json
import logging
import os
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout
from tqdm import tqdm

logger = logging.getLogger(__name__)

LIMIT = 64 * 2**30  # largest file in bytes; one without a known length could otherwise fill the disk
_SCHEMES = ("https",)  # of the address and of everything it redirects to
_CHUNK = 1 << 20
_TIMEOUT = 60.0  # seconds without data until an attempt fails
_SLOWEST = 1024  # bytes per second, over as many seconds, below which an attempt fails
_ATTEMPTS = 5
_PAUSE = 1.0  # seconds before the second attempt, twice as many before each further one
_TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)  # statuses of a server that may work in a moment
# What versions before this one left behind, and the seconds after which no process still writes it.
_OLD_NAME, _OLD_AGE = re.compile(r"incomplete\.[0-9a-f]{8}\.(.+)"), 3600


class DownloadError(OSError):
    """An error of the network or of the server during a download."""


class _BrokenError(Exception):
    """An error that a further attempt may not meet."""


class _RefusedError(OSError):
    """An error for an address that is not https."""


def cache_dir() -> Path:
    """Returns the folder of published weights and compiled programs: $MTL_JAX_CACHE, by default ~/.cache/mtl_jax."""
    return Path(os.environ.get("MTL_JAX_CACHE") or "~/.cache/mtl_jax").expanduser()


def sha256(path: Path) -> str:
    """Computes the SHA-256 of a file as a hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def retrieve(url: str, path: Path, verify: Callable[[Path], None], *, limit: int = LIMIT) -> None:
    """Downloads a file under a temporary name, verifies it and renames it. Does not replace a file that is there.

    The address and all redirects must be https. An attempt that fails for a reason that may pass is repeated, five
    attempts in all, and goes on where the last one broke off if the server can do so. What a failed or killed download
    leaves behind serves the next call in the same way. If several processes or threads ask for the same file, one
    downloads it and the others wait.

    Args:
        url: Address of the file.
        path: Path of the downloaded file.
        verify: Function that receives the path of the complete file, and raises ValueError if it is not the expected
            file, or not all of it: a server need not say how long a file is.
        limit: Largest permitted size in bytes.

    Raises:
        DownloadError: The file cannot be downloaded, is too large, or has no room on the disk.
        ValueError: `verify` refuses the file. The file is not kept.
    """
    partial = _Partial(path.with_name(f"incomplete.{path.name}"), url)
    try:
        if not path.is_file():
            _check_scheme(url)
            path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(path):
                _remove_older(path)
                if not path.is_file():
                    _download(partial, path.name, limit)
                    if not _accepts(verify, partial, anew=partial.doubtful):
                        _download(partial, path.name, limit)
                        _accepts(verify, partial, anew=False)
                    partial.file.replace(path)
                    partial.remove()
                    return
        _remove_parts(partial, path)  # the file was put there by hand meanwhile
        verify(path)
    except DownloadError:
        raise
    except (OSError, NotImplementedError) as error:  # filelock raises the latter on disks without locks
        raise DownloadError(f"cannot download {path.name} from {url}: {error or type(error).__name__}") from error


@dataclass
class _Partial:
    """The part of a file that has arrived, with a note beside it that tells which state of the file it belongs to.

    Attributes:
        file: The part.
        url: Address of the file.
        doubtful: True if it comes from several attempts, or from a server that did not say how long the file is.
    """

    file: Path
    url: str
    doubtful: bool = False

    @property
    def _note(self) -> Path:
        return self.file.with_name(f"{self.file.name}.json")

    def state(self) -> tuple[int, str, int | None]:
        """Returns the number of bytes that are there, their validator and the length of the file, None if unknown.

        A validator is an ETag or a time of modification, by which a server knows whether the file has changed. Bytes
        without a validator do not count.
        """
        try:
            note = json.loads(self._note.read_bytes())
            url, validator, total = note["url"], str(note["validator"]), note["total"]
            size = self.file.stat().st_size
        except (OSError, ValueError, LookupError, TypeError):
            return 0, "", None  # nothing, or nothing usable
        usable = validator and validator.isascii() and validator.isprintable() and isinstance(total, int | None)
        if url != self.url or not usable or size > (total or size):
            return 0, "", None
        return size, validator, total

    def begin(self, validator: str, total: int | None) -> None:
        """Starts the part anew."""
        self.remove()
        self._note.write_text(json.dumps({"url": self.url, "validator": validator, "total": total}))

    def remove(self) -> None:
        """Removes the part and its note."""
        self.doubtful = False
        self.file.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds the lock of a file that is to be downloaded. The lock of a process that dies becomes free."""
    lock = FileLock(_lock_file(path))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("another process downloads %s; waiting for it", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _accepts(verify: Callable[[Path], None], partial: _Partial, anew: bool) -> bool:
    """Returns whether a downloaded file is the expected one. It is removed if it is not.

    Args:
        verify: See `retrieve`.
        partial: The file.
        anew: True if a wrong file may be right when it is downloaded anew.

    Raises:
        ValueError: The file is wrong, and `anew` is False.
    """
    try:
        verify(partial.file)
    except ValueError as error:
        partial.remove()
        if not anew:
            raise
        logger.warning("what came from %s is wrong or not whole (%s); starting anew", partial.url, error)
        return False
    return True


def _remove_parts(partial: _Partial, path: Path) -> None:
    """Removes what an earlier download of a file left behind, unless a process is downloading it."""
    if partial.file.exists():
        with contextlib.suppress(OSError, NotImplementedError), FileLock(_lock_file(path), timeout=0):
            partial.remove()


def _lock_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _remove_older(path: Path) -> None:
    """Removes what downloads of the file by older versions of this package left behind."""
    for left in path.parent.glob("incomplete.*"):
        match = _OLD_NAME.fullmatch(left.name)
        if match and match[1] == path.name:
            with contextlib.suppress(FileNotFoundError):  # its process may end just now
                if time.time() - left.stat().st_mtime > _OLD_AGE:
                    logger.info("removing %s, which a download that has ended left behind", left)
                    left.unlink()


def _download(partial: _Partial, name: str, limit: int) -> None:
    """Downloads what is missing of a file, in several attempts if need be."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _attempt(partial, name, limit)
            return
        except _BrokenError as error:
            if attempt == _ATTEMPTS:
                raise DownloadError(
                    f"cannot download {name} from {partial.url}: {error}; {_ATTEMPTS} attempts have failed"
                    + _what_is_kept(partial)
                ) from error
            pause = _PAUSE * 2 ** (attempt - 1)
            logger.warning("download of %s: %s; attempt %d of %d in %g s", name, error, attempt + 1, _ATTEMPTS, pause)
            time.sleep(pause)
        except OSError as error:
            raise DownloadError(
                f"cannot download {name} from {partial.url}: {error}{_what_is_kept(partial)}"
            ) from error


def _what_is_kept(partial: _Partial) -> str:
    """Returns the end of an error: which bytes the next call need not download again. Others are removed."""
    size, _, total = partial.state()
    if not size:
        partial.remove()
        return ""
    return f". {size} of {total or 'an unknown number of'} bytes are in {partial.file}; the next download goes on there"


def _attempt(partial: _Partial, name: str, limit: int) -> None:
    """Downloads what is missing of a file.

    Raises:
        _BrokenError: A further attempt may succeed.
        OSError: A further attempt would fail, too.
    """
    start, validator, total = partial.state()
    if start and start == total:
        partial.doubtful = True
        return  # a process ended between the last byte and the new name
    # A server with another state of the file ignores the range and sends the new state from the beginning.
    ranges = {"Range": f"bytes={start}-", "If-Range": validator} if start else {}
    with _opened(partial, ranges) as response:
        length = _number(response.headers.get("Content-Length"))
        offered = _validator(response)
        if response.headers.get_content_type() == "text/html":
            raise OSError("the server answered with a web page instead of the file (moved, or a download limit)")
        if response.status == http.client.PARTIAL_CONTENT and start:
            if offered and offered != validator:
                partial.remove()
                raise _BrokenError("the file on the server has changed")
            stated = _check_range(response, start, total, partial)
            total = total or stated or (start + length if length is not None else None)
            partial.doubtful = True
        elif response.status == http.client.OK:
            if start:
                logger.warning("%s starts anew: the server has a changed file, or cannot go on where it stopped", name)
            start, total = 0, length
            partial.begin(offered, total)
            partial.doubtful = total is None
        else:
            raise OSError(f"the server answered with the status {response.status} instead of the file")
        _check_room(partial.file.parent, start, total, limit)
        with (
            partial.file.open("ab") as file,
            tqdm(desc=f"downloading {name}", total=total, initial=start, unit="B", unit_scale=True) as bar,
        ):
            size = _copy(response, file, start, total, limit, bar)
            file.flush()
            os.fsync(file.fileno())
    if total is None and size > limit:
        partial.remove()
        raise OSError(f"the file is larger than {limit} bytes")
    if total is not None and size != total:
        raise _BrokenError(f"the connection broke after {size} of {total} bytes")


def _copy(response: Any, file: BinaryIO, size: int, total: int | None, limit: int, bar: tqdm) -> int:
    """Appends the body of a response to a file that has `size` bytes; returns the new size.

    It stops at the length of the file if that is known, and otherwise behind the limit.
    """
    since, before = time.monotonic(), size
    end = limit + 1 if total is None else total
    while size < end:
        try:
            chunk = response.read1(min(_CHUNK, end - size))
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenError(f"the connection broke after {size} bytes ({_text(error)})") from error
        if not chunk:
            break
        size += len(chunk)
        file.write(chunk)
        bar.update(len(chunk))
        if (seconds := time.monotonic() - since) > _TIMEOUT:
            if size - before < _SLOWEST * seconds:
                raise _BrokenError(f"the server sent {size - before} bytes in {seconds:.0f} seconds")
            since, before = time.monotonic(), size
    return size


@contextlib.contextmanager
def _opened(partial: _Partial, ranges: dict[str, str]) -> Iterator[Any]:
    headers = {"User-Agent": "Mozilla/5.0", "Accept-Encoding": "identity", **ranges}
    try:
        response = _opener().open(urllib.request.Request(partial.url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and ranges:
            partial.remove()
            raise _BrokenError("the file on the server is shorter than what has arrived") from error
        if error.code in _TRY_AGAIN:
            raise _BrokenError(f"the server answered {error}") from error
        raise OSError(f"{error}") from error
    except urllib.error.URLError as error:
        reason = error.reason
        unknown = isinstance(reason, socket.gaierror) and reason.errno != socket.EAI_AGAIN
        if unknown or isinstance(reason, ssl.SSLCertVerificationError):
            raise OSError(f"{reason}") from error
        raise _BrokenError(_text(reason)) from error
    except _RefusedError:
        raise
    except ValueError as error:  # of a malformed address
        raise OSError(f"{error}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(_text(error)) from error
    with response:
        yield response


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https only."""

    def http_error_302(self, req, fp, code, msg, headers):
        target = headers.get("location") or headers.get("uri") or ""
        try:
            _check_scheme(urllib.parse.urljoin(req.full_url, target), f"{req.full_url} redirects to ")
        except (_RefusedError, ValueError):
            fp.close()
            raise
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _check_scheme(url: str, who: str = "") -> None:
    """Raises _RefusedError for an address that is not https; `who` names what leads to it."""
    try:
        scheme, host = urllib.parse.urlsplit(url)[:2]
    except ValueError as error:
        raise _RefusedError(f"{who}{url}, which is no address ({error})") from error
    if scheme not in _SCHEMES or not host:
        raise _RefusedError(f"{who}{url or 'nothing'}; only addresses https://... are fetched")


def _opener() -> urllib.request.OpenerDirector:
    """Returns what opens addresses: without urllib's handlers of ftp, files and data."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        _Redirects(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _check_range(response: Any, start: int, total: int | None, partial: _Partial) -> int | None:
    """Checks that a partial answer goes on where the part ends; returns the length of the file that it states."""
    text = response.headers.get("Content-Range", "").strip()
    match = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", text, re.ASCII)
    stated = int(match[2]) if match and match[2] != "*" else None
    if not match or int(match[1]) != start or (total and stated and stated != total):
        partial.remove()
        raise _BrokenError(f"the server sent the range {text!r:.80} instead of the one from byte {start}")
    return stated


def _check_room(folder: Path, start: int, total: int | None, limit: int) -> None:
    if total is None:
        return
    if total > limit:
        raise OSError(f"the file has {total} bytes, more than {limit}")
    if total - start > (free := shutil.disk_usage(folder).free):
        raise OSError(f"{total - start} bytes are missing and {folder} has room for {free}; free disk space")


def _validator(response: Any) -> str:
    """Returns what a server recognises a state of the file by; "" if it says nothing that is good for ranges."""
    tag = response.headers.get("ETag", "").strip()
    # A weak tag, W/"...", stands for contents that are alike and not for the same bytes.
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "").strip()


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,18}", text.strip()) else None


def _text(error: object) -> str:
    return str(error) or type(error).__name__
