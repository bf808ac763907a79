"""Finding the files of a data set: in a folder the user names, in an archive there, or by download."""

import json
import shutil
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from mtl_jax.runtime import atomic_files
from mtl_jax.runtime.download import DownloadError, retrieve, sha256

ARCHIVES = (".tgz", ".tar.gz", ".tar", ".zip")
# What damaged, encrypted or unsupported archives raise, besides a full disk.
_UNPACKING = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError)


_REMEDY = (
    "Get the file by other means, put it (or the folder it unpacks to) into a folder DIR and pass --manual_dir=DIR to "
    "scripts/build_data.py, or --config.data.manual_dir=DIR to scripts/train.py"
)


@dataclass(frozen=True)
class Download:
    """A file that can be downloaded.

    Attributes:
        file: its name.
        url: where it is: over http or https, or a page for people to open where `drive_id` is given.
        drive_id: of a file on Google Drive, which needs the package gdown.
        sha256: its published checksum, if there is one.
    """

    file: str
    url: str
    drive_id: str = ""
    sha256: str = ""

    @classmethod
    def on_drive(cls, file: str, drive_id: str) -> "Download":
        """A file on Google Drive."""
        return cls(file, f"https://drive.google.com/file/d/{drive_id}/view", drive_id)


def given_manual_dir(dl_manager: Any, folder: str) -> Path | None:
    """The folder or archive given as `DownloadConfig(manual_dir=...)`; None where there is none.

    The folder that tfds takes by default counts where it holds the data set's folder or archive.

    Raises:
        FileNotFoundError: what was given does not exist.
    """
    path = dl_manager._manual_dir  # the public property raises when nothing was given, which is no error here
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
    """The folder with the data set's files.

    Looked for in `manual_dir` (the folder itself, the folder inside it, an archive inside it, or itself an archive);
    without `manual_dir` the archive is downloaded.

    Args:
        folder: name of the data set's folder and stem of its archive.
        source: the download.
        marker: a file or folder that is there when the files are.
        manual_dir: where the user put the files, if anywhere.
        download_dir: receives downloads, their checksums and what is extracted.

    Raises:
        FileNotFoundError: nothing usable in `manual_dir`.
        OSError: the download failed.
        ValueError: a download does not have the recorded checksum, or an archive is damaged.
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
        found = [path for path in archives if path.is_file()]
        if not found:
            raise FileNotFoundError(
                f"no {folder} files in {manual_dir}: expected the folder {folder} (with {marker} in it) or one of the "
                f"archives {', '.join(path.name for path in archives)}. Download {source.file} from {source.url} and "
                "put it there"
            )
        archive = found[0]
    download_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(download_dir / ".lock"):  # a release and its subset share the archive
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
    """Unpacks an archive into a folder of its own below `into`; a second call finds it there.

    Raises:
        ValueError: the archive is damaged.
    """
    target = into / f"{archive.name}.{sha256(archive)[:16]}"
    if target.is_dir():
        return target
    partial = into / f"incomplete.{target.name}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        if archive.name.endswith(".zip"):
            with zipfile.ZipFile(archive) as file:
                file.extractall(partial)
        else:
            with tarfile.open(archive) as file:
                file.extractall(partial, filter="data")
    except _UNPACKING as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise ValueError(f"cannot unpack {archive}: {error}; get the archive again, or free disk space") from error
    partial.rename(target)  # only a complete folder ever has this name
    return target


def download(source: Download, folder: Path) -> Path:
    """Downloads a file once and verifies it ever after.

    Where no checksum is published, the SHA-256 of the first download is recorded in `<file>.json` beside it.

    Raises:
        OSError: the download failed; the message says where to put the file instead.
        ValueError: the file is not the published or recorded one.
    """
    path, note = folder / source.file, folder / f"{source.file}.json"
    if not path.is_file():
        try:
            if source.drive_id:
                _from_drive(source, path)
            else:
                retrieve(source.url, path)
        except DownloadError as error:
            raise OSError(f"{error}. {_REMEDY}") from error
    found = sha256(path)
    if source.sha256 and found != source.sha256:
        raise ValueError(
            f"{path} has SHA-256 {found}, published is {source.sha256}. Delete the file to download it again"
        )
    if not note.is_file():
        content = {"url": source.url, "bytes": path.stat().st_size, "sha256": found}
        atomic_files.write_json(note, content)  # cut short by a crash, it would condemn the file
    recorded = json.loads(note.read_text())["sha256"]
    if found != recorded:
        raise ValueError(
            f"{path} has SHA-256 {found}, but {note.name} beside it records {recorded}. Delete the file to download it "
            "again; delete both if the published file has changed"
        )
    return path


def _from_drive(source: Download, path: Path) -> None:
    """Google Drive answers plain requests for large files with a page of warnings, which gdown knows to pass."""
    try:
        import gdown
    except ImportError as error:
        raise DownloadError(
            f"{source.file} is on Google Drive ({source.url}), and the package gdown, which downloads from there, is "
            "not installed: pip install 'mtl-jax[drive]', or open the address in a browser"
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"incomplete.{path.name}")
    try:
        done = gdown.download(id=source.drive_id, output=str(partial), resume=True)
    except Exception as error:  # gdown lets the errors of several libraries through
        raise DownloadError(f"cannot download {source.file} from {source.url}: {error}") from error
    if done is None:
        raise DownloadError(f"cannot download {source.file} from {source.url}")
    partial.replace(path)
