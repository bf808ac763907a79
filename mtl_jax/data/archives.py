"""Checking and unpacking of archives, which may be cut short, damaged, hostile, or something else altogether."""

import bz2
import gzip
import io
import logging
import lzma
import posixpath
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any

logger = logging.getLogger(__name__)

SUFFIXES = (".tgz", ".tar.gz", ".tar", ".zip")
# Bounds on what an archive unpacks to. Maps of labels, saved as they are, compress well, but not a hundred times.
_FACTOR, _FLOOR = 100, 2**30
_MEMBERS = 500_000
_LONGEST = 1 << 24  # bytes that are read at once: of the texts in headers of a tar archive, which memory must hold
_CHUNK = 1 << 20
_COMPRESSIONS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
# Exceptions of damaged, encrypted, unsupported or hostile archives, and of a full disk.
_FAILURES = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
    ArithmeticError,
    LookupError,
)


def check(path: Path, name: str = "") -> None:
    """Checks that an archive is whole, by reading all of it without unpacking it.

    Args:
        path: Path of the archive.
        name: Name of the archive, whose suffix tells zip archives from tar archives; "" means that of the path.

    Raises:
        ValueError: It is damaged, cut short, hostile, or no archive.
    """
    name = name or path.name
    logger.info("checking %s", name)
    try:
        _refuse_pages(path)
        if name.endswith(".zip"):
            _read_zip(path, None)
        else:
            _read_tar(path, None)
    except _FAILURES as error:
        raise ValueError(f"{name} is no whole archive: {error or type(error).__name__}") from error


def unpack(path: Path, into: Path) -> None:
    """Unpacks an archive into a folder.

    Names and links that leave the folder, devices and other special files are refused. So are archives that unpack to
    more than a hundred times their size and a gibibyte, or to more than the disk has room for.

    Raises:
        ValueError: The archive cannot be unpacked. The folder may hold a part of it.
    """
    try:
        _refuse_pages(path)
        if path.name.endswith(".zip"):
            _read_zip(path, into)
        else:
            _read_tar(path, into)
    except _FAILURES as error:
        raise ValueError(
            f"cannot unpack {path}: {error or type(error).__name__}; get the archive again, or free disk space"
        ) from error


def _refuse_pages(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html")):
        raise ValueError("it is a web page instead of the file (moved, or a download limit)")


class _Budget:
    """The bytes and members that an archive may unpack to.

    Args:
        path: The archive.
        into: Folder that it is unpacked into, None if it is only read.
    """

    def __init__(self, path: Path, into: Path | None):
        size = path.stat().st_size
        self._allowed = _FACTOR * size + _FLOOR
        self._reason = f"the most that is permitted for an archive of {size} bytes"
        if into is not None and (free := shutil.disk_usage(into).free) < self._allowed:
            self._allowed, self._reason = free, f"the free space for {into}"
        self._bytes = self._members = 0

    def member(self, size: int) -> None:
        """Counts a member that claims this many bytes."""
        if size < 0:
            raise ValueError(f"one of its members claims {size} bytes")
        self._members += 1
        self._bytes += size
        if self._members > _MEMBERS:
            raise ValueError(f"it has more than {_MEMBERS} members")
        self.check(self._bytes)

    def check(self, size: int) -> None:
        """Checks a number of bytes."""
        if size > self._allowed:
            raise ValueError(f"it unpacks to more than {self._allowed} bytes, {self._reason}")


def _read_zip(path: Path, into: Path | None) -> None:
    """Reads all members of a zip archive, and writes them below `into` unless it is None."""
    budget = _Budget(path, into)
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            budget.member(info.file_size)  # zipfile reads no more than it claims
            _refuse_outside(info.filename)
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ValueError(f"its member {info.filename!r:.80} is a link or special file")
        for info in archive.infolist():
            if into is not None:
                archive.extract(info, into)
            elif not info.is_dir():
                with archive.open(info) as member:
                    while member.read(_CHUNK):
                        pass


def _refuse_outside(name: str) -> None:
    """Checks that the name of a member stays in the folder, under Windows, too."""
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        if path.is_absolute() or path.drive or ".." in path.parts:
            raise ValueError(f"its member {name!r:.80} lies outside of the folder")


def _read_tar(path: Path, into: Path | None) -> None:
    """Reads a tar archive to its end in one pass, and writes its members below `into` unless it is None."""
    budget, links = _Budget(path, into), set[str]()
    folder = str(into or path.with_name(f"{path.name}.unpacked"))
    with path.open("rb") as file:
        start = file.read(6)
    with next((each for magic, each in _COMPRESSIONS.items() if start.startswith(magic)), open)(path, "rb") as content:
        stream = _Stream(content, budget)
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                budget.member(member.size)
                _refuse_detours(member, links)
                tarfile.data_filter(member, folder)
                if into is not None:
                    archive.extract(member, into, filter="data")
        # A block of zeros marks the end. What is cut short lacks it, and so does an archive with a damaged header, at
        # which tarfile stops.
        if stream.last != bytes(tarfile.BLOCKSIZE):
            raise ValueError("it ends without the mark of its end; it is cut short or damaged")
        while stream.read(_CHUNK):  # to the checksum of what is compressed
            pass


def _refuse_detours(member: tarfile.TarInfo, links: set[str]) -> None:
    """Checks that the path and the target of a member of a tar archive do not pass through links.

    `tarfile.data_filter` checks where paths lead, but it can be misled by links to links in some versions of Python.

    Args:
        member: The member.
        links: Paths of the links before it, to which its own is added.
    """
    if ".." in PurePosixPath(member.name).parts:
        raise ValueError(f"its member {member.name!r:.80} has .. in its name")
    paths = [member.name]
    if member.issym() or member.islnk():
        parts = PurePosixPath(member.linkname).parts
        up = next((index for index, part in enumerate(parts) if part != ".."), len(parts))
        if ".." in parts[up:]:
            raise ValueError(f"its link {member.name!r:.80} leads to {member.linkname!r:.80}")
        paths.append(posixpath.join(posixpath.dirname(member.name) if member.issym() else "", member.linkname))
    for path in paths:
        for parent in PurePosixPath(posixpath.normpath(path)).parents:
            if str(parent) in links:
                raise ValueError(f"its member {member.name!r:.80} passes through the link {str(parent)!r:.80}")
    if member.issym():
        links.add(posixpath.normpath(member.name))


class _Stream(io.RawIOBase):
    """A stream that is not read beyond a budget, nor in pieces that memory may not hold.

    Attributes:
        last: Result of the last `read`.
    """

    def __init__(self, content: IO[bytes], budget: _Budget):
        self._content, self._budget = content, budget
        self.last = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LONGEST:
            raise ValueError(f"a header of it claims {size} bytes")
        data = self._content.read(size)
        self._budget.check(self._content.tell())
        self.last = data
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_SET:
            self._budget.check(offset)
        return self._content.seek(offset, whence)

    def tell(self) -> int:
        return self._content.tell()
