"""Finding of a data set's files: in a folder of the user, in an archive in such a folder, or by download."""

import json
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from mtl_jax.data import archives
from mtl_jax.runtime import atomic_files, messages
from mtl_jax.runtime.download import DownloadError, retrieve, sha256

ARCHIVES = archives.SUFFIXES

_REMEDY = (
    "Get the file by other means, put it (or the folder it unpacks to) into a folder DIR and pass --manual_dir=DIR to "
    "`mtl data build`, or --data.manual_dir=DIR to `mtl train`"
)


@dataclass(frozen=True)
class Download:
    """A file that can be downloaded.

    Attributes:
        file: Name of the file.
        url: Address of the file (https), or of a page for people to open if `drive_id` is set.
        drive_id: Id of a file on Google Drive, whose download needs the package gdown; "" for other files.
        sha256: Published checksum; "" if there is none.
    """

    file: str
    url: str
    drive_id: str = ""
    sha256: str = ""

    @classmethod
    def on_drive(cls, file: str, drive_id: str) -> "Download":
        """Returns the download of a file on Google Drive."""
        return cls(file, f"https://drive.google.com/file/d/{drive_id}/view", drive_id)


def given_manual_dir(dl_manager: Any, folder: str) -> Path | None:
    """Returns the folder or archive given as `DownloadConfig(manual_dir=...)`, or None if there is none.

    The default folder of tfds counts only if it contains the folder or archive of the data set.

    Args:
        dl_manager: Download manager of tfds.
        folder: Name of the data set's folder, and stem of its archive.

    Raises:
        FileNotFoundError: the given path does not exist, or is no archive of a known type.
    """
    path = dl_manager._manual_dir  # the public property raises an exception if no folder was given
    if path is None:
        return None
    path = Path(path)
    if path == Path(dl_manager.download_dir) / "manual":
        return path if any((path / f"{folder}{suffix}").exists() for suffix in ("", *ARCHIVES)) else None
    if path.is_dir() or (path.is_file() and path.name.endswith(ARCHIVES)):
        return path
    raise FileNotFoundError(
        f"{path}, given as manual_dir, is neither a folder nor an archive ({', '.join(ARCHIVES)}); correct the path"
    )


def locate(folder: str, source: Download, *, marker: str, manual_dir: Path | None, download_dir: Path) -> Path:
    """Returns the folder with the files of a data set.

    `manual_dir` may be this folder, contain it, contain an archive of it, or be an archive of it. If it is None, the
    archive is downloaded.

    Args:
        folder: Name of the data set's folder, and stem of its archive.
        source: Archive to download.
        marker: File or folder whose presence shows that a folder holds the files.
        manual_dir: Folder or archive of the user.
        download_dir: Folder for downloads, their checksums and extracted files.

    Raises:
        FileNotFoundError: `manual_dir` or the archive does not contain the files.
        OSError: the download failed.
        ValueError: the download does not have the recorded checksum, or the archive is damaged.
    """
    if manual_dir is None:
        archive = download(source, download_dir)
    elif manual_dir.is_file():
        archive = manual_dir
    else:
        for candidate in (manual_dir, manual_dir / folder):
            if (candidate / marker).exists():
                return candidate
        archives = [manual_dir / f"{folder}{suffix}" for suffix in ARCHIVES]
        present = [path for path in archives if path.is_file()]
        if not present:
            raise FileNotFoundError(
                f"no {folder} files in {manual_dir}: expected the folder {folder} (with {marker} in it) or one of the "
                f"archives {', '.join(path.name for path in archives)}. Download {source.file} from {source.url} and "
                "put it there"
            )
        archive = present[0]
    download_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(download_dir / ".lock"):  # the full data set and its subset use the same archive
        extracted = extract(archive, download_dir / "extracted")
    for candidate in (extracted / folder, extracted):
        if (candidate / marker).exists():
            return candidate
    held = ", ".join(sorted(path.name for path in extracted.iterdir())[:5])
    raise FileNotFoundError(
        f"the archive {archive} holds {held or 'nothing'}, expected {folder} with {marker} in it; give the folder that "
        "has it as manual_dir, or another archive"
    )


def extract(archive: Path, into: Path) -> Path:
    """Unpacks an archive into a folder below `into`, unless an earlier call has done so.

    Only one process may call it at a time for the same folder.

    Returns:
        The folder, whose name contains that of the archive and its checksum.

    Raises:
        ValueError: The archive cannot be unpacked, because it is damaged, has members that do not belong into a data
            set, unpacks to too much, or the disk is full.
    """
    target = into / f"{archive.name}.{sha256(archive)[:16]}"
    for left in into.glob("incomplete.*"):  # of a killed process
        shutil.rmtree(left, ignore_errors=True)
    if target.is_dir():
        return target
    unfinished = into / f"incomplete.{target.name}"
    unfinished.mkdir(parents=True)
    try:
        archives.unpack(archive, unfinished)
    except ValueError:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    unfinished.rename(target)  # only a complete folder ever has this name
    return target


def download(source: Download, folder: Path) -> Path:
    """Downloads a file unless it is there, and verifies its checksum at every call.

    The SHA-256 of the first download is recorded in `<file>.json` beside the file, since not every file has a published
    checksum. It is recorded after the whole archive has been read without an error. Several processes may call this
    function; one downloads the file.

    Returns:
        The path of the file.

    Raises:
        OSError: The download failed; the message says where to put the file instead.
        ValueError: The file is no whole archive, its checksum is not the published or recorded one, or the record is
            damaged.
    """
    path, note = folder / source.file, folder / f"{source.file}.json"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        there = path.is_file()
        try:
            if source.drive_id and not there:
                _from_drive(source, path)
            elif not there:
                retrieve(source.url, path, partial(_check_download, source))
        except DownloadError as error:
            raise OSError(f"{error}. {_REMEDY}") from error
        checksum = sha256(path)
        if source.sha256 and checksum != source.sha256:
            raise ValueError(
                f"{path} has SHA-256 {checksum}, published is {source.sha256}. Delete the file to download it again"
            )
        if not note.is_file():
            if there:
                archives.check(path)
            content = {"url": source.url, "bytes": path.stat().st_size, "sha256": checksum}
            atomic_files.write_json(note, content)  # an incomplete record would make the file look wrong
        recorded = _recorded(note)
    if checksum != recorded:
        raise ValueError(
            f"{path} has SHA-256 {checksum}, but {note.name} beside it records {recorded}. Delete the file to download "
            "it again; delete both if the published file has changed"
        )
    return path


def _recorded(note: Path) -> str:
    """Returns the checksum in the record beside a download."""
    try:
        recorded = json.loads(note.read_bytes())["sha256"]
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"{note}, the record of the checksum of {note.stem}, is damaged ({error}); delete it to have the file "
            "checked anew, or delete both to download it again"
        ) from error
    return str(recorded)


def _check_download(source: Download, path: Path) -> None:
    """Checks that a download is a whole archive, and has the published checksum if there is one."""
    if source.sha256 and (checksum := sha256(path)) != source.sha256:
        raise ValueError(
            f"{source.file} from {source.url} has SHA-256 {checksum}, published is {source.sha256}; it was not kept. "
            "Try again later, or tell the publisher"
        )
    try:
        archives.check(path, source.file)
    except ValueError as error:
        raise ValueError(f"the download from {source.url} was not kept: {error}. {_REMEDY}") from error


def _from_drive(source: Download, path: Path) -> None:
    """Downloads a file from Google Drive with gdown, which passes the page of warnings that precedes a large file."""
    try:
        import gdown
    except ImportError as error:
        raise DownloadError(
            f"{source.file} is on Google Drive ({source.url}), and the package gdown, which downloads from there, is "
            f"not installed: {messages.install('drive')}; or open the address in a browser"
        ) from error
    unfinished = path.with_name(f"incomplete.{path.name}")
    try:
        done = gdown.download(id=source.drive_id, output=str(unfinished), resume=True)
    except Exception as error:  # gdown passes on the exceptions of several libraries
        raise DownloadError(f"cannot download {source.file} from {source.url}: {error}") from error
    if done is None:
        raise DownloadError(f"cannot download {source.file} from {source.url}")
    try:
        _check_download(source, unfinished)
    except ValueError:
        unfinished.unlink(missing_ok=True)
        raise
    unfinished.replace(path)
