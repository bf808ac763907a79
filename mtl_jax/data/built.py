"""Opening of built data sets, whose small files say what the records mean and may be damaged.

A flipped bit in `features.json` or `dataset_info.json` can change a shape or the size of a split without making the
file unreadable. The SHA-256 of the small files is therefore noted beside them when a data set has been built, and
compared when it is opened. Data sets of older versions have no such note.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from mtl_jax.runtime import atomic_files

NOTE = "checksums.json"  # {name of a file: SHA-256}
_NEEDED = ("dataset_info.json", "features.json")
_METADATA = "metadata.json"


def note_checksums(folder: Path) -> None:
    """Notes the SHA-256 of the small files of a data set that has just been built.

    Raises:
        OSError: The note cannot be written.
    """
    # Files of originals can be damaged without harm, and one of them changes.
    small = [*folder.glob("*.json"), *folder.glob("*.txt")]
    files = sorted(path for path in small if path.name != NOTE and not path.name.startswith("originals"))
    atomic_files.write_json(folder / NOTE, {path.name: _digest(path) for path in files})


def check(folder: Path) -> None:
    """Checks the small files of a built data set.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: A file is missing or damaged; the message names it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no data set is built in {folder}; build it")
    for name in _NEEDED:
        if not (folder / name).is_file():
            raise _damage(folder, name, "it is missing")
    if (folder / NOTE).exists():
        for name, digest in _noted(folder).items():
            try:
                now = _digest(folder / name)
            except (OSError, ValueError) as error:
                raise _damage(folder, name, f"{NOTE} beside it names it, and it cannot be read: {error}") from error
            if now != digest:
                raise _damage(folder, name, f"its SHA-256 is {now}, and {NOTE} beside it says {digest!r:.70}")
        return
    for name in (*_NEEDED, _METADATA):
        if not (folder / name).exists():
            continue
        try:
            content = json.loads((folder / name).read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise _damage(folder, name, str(error)) from error
        if not isinstance(content, dict):
            raise _damage(folder, name, "it is no table")


def open_built(folder: Path) -> tfds.core.DatasetBuilder:
    """Returns the builder of a built data set, from its files alone.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: A file is missing or damaged; the message names it.
    """
    with checked(folder):
        return tfds.builder_from_directory(str(folder))


@contextlib.contextmanager
def checked(folder: Path) -> Iterator[None]:
    """Checks the small files of a data set, and explains errors of what follows, which reads them.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: A file is missing or damaged; the message names it, or those of which one is damaged.
    """
    check(folder)
    try:
        yield
    except Exception as error:  # tfds passes on whatever a damaged file leads to, failing imports for example
        if (folder / NOTE).exists():
            raise  # the files are as they were built, so they are not the reason
        names = " or ".join((*_NEEDED, _METADATA))
        raise _damage(folder, names, f"{type(error).__name__}: {error}") from error


def _noted(folder: Path) -> dict[str, str]:
    """Returns the noted checksums."""
    try:
        noted = json.loads((folder / NOTE).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise _damage(folder, NOTE, str(error)) from error
    if not isinstance(noted, dict) or not set(_NEEDED) <= noted.keys():
        raise _damage(folder, NOTE, f"it does not name {' and '.join(_NEEDED)}")
    return noted


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _damage(folder: Path, name: str, reason: str) -> ValueError:
    return ValueError(f"{folder / name} is damaged ({reason}). Delete the folder {folder} and build the data set again")
