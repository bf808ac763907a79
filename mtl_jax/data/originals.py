"""Notes on the original files of a data set, to compare a folder with what was built from it.

Names, sizes and modification times are compared first. A copy of a folder has other times; its contents tell that it is
the same folder.
"""

import gzip
import hashlib
import json
import logging
import stat
import zlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from mtl_jax.runtime import atomic_files, messages, workers

logger = logging.getLogger(__name__)

_FILE = "originals.json.gz"  # beside the records: {"ids": {split: ids}, "files": {name: [size, time, SHA-256]}}
_ACCEPTED = "originals_accepted.json"  # beside it: hashes of names, sizes and times of folders with the same contents
_KEPT = 16  # hashes in that file
_EXAMPLES = 3  # files named in a message

Ids = Mapping[str, Sequence[str]]
State = tuple[str, int, int]  # see `staging.file_state`


def write(built: Path, root: Path, ids: Ids, states: Iterable[State], num_workers: int | None) -> None:
    """Writes what the original files are beside the data set that is built from them.

    Args:
        built: Folder of the data set.
        root: Folder of the original files.
        ids: Ids of each split.
        states: States of the files. A file that changes during the build ends it, see `Staging.records`.
        num_workers: Number of threads that read files; None means one for each core.
    """
    by_name = _by_name(states)
    digests = _digests(root, list(by_name.values()), num_workers, "noting contents")
    files = {name: [size, time, digests[path]] for name, (path, size, time) in by_name.items()}
    content = json.dumps({"ids": {split: list(names) for split, names in ids.items()}, "files": files})
    atomic_files.write(built / _FILE, gzip.compress(content.encode(), mtime=0))


def differences(
    built: Path, root: Path, lists: Mapping[str, str], ids: Ids, states: Iterable[State], num_workers: int | None
) -> list[str] | None:
    """Returns how the files of a folder differ from those that a data set was built from.

    Contents are compared only where times differ, and only if nothing else does.

    Args:
        built: Folder of the data set.
        root: Folder of the original files.
        lists: {split: path of its list of ids}, for the messages.
        ids: Ids of each split.
        states: States of the files.
        num_workers: Number of threads that read files; None means one for each core.

    Returns:
        Descriptions of the differences, none if the contents are the same; None if the data set was built by a version
        that did not note what the files are.
    """
    try:
        stored = json.loads(gzip.decompress((built / _FILE).read_bytes()))
        before = {name: (int(size), int(time), str(digest)) for name, (size, time, digest) in stored["files"].items()}
        ids_before = {split: list(names) for split, names in stored["ids"].items()}
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError):
        return None  # missing or damaged
    now = _by_name(states)
    different = [
        f"{lists[split]} has {_changes(ids_before.get(split, []), names) or 'another order'}"
        for split, names in ids.items()
        if list(names) != ids_before.get(split)
    ]
    different += _grouped("new file(s)", [path for name, (path, _, _) in now.items() if name not in before])
    different += _grouped("missing file(s)", [name for name in before if name not in now])
    common = {name: state for name, state in now.items() if name in before}
    changed = [path for name, (path, size, _) in common.items() if size != before[name][0]]
    if not different and not changed:
        moved = {name: state for name, state in common.items() if state[2] != before[name][1]}
        digests = _digests(root, list(moved.values()), num_workers, f"comparing {messages.printable(root.name)}")
        changed = [
            path for name, (path, _, _) in moved.items() if not digests[path] or digests[path] != before[name][2]
        ]
    return different + _grouped("changed file(s)", changed)


def is_accepted(built: Path, source: str) -> bool:
    """Returns True if files with this hash of names, sizes and times are known to be those of the data set."""
    return source in _accepted(built)


def accept(built: Path, source: str) -> None:
    """Notes the hash of files with the contents of the data set, so that they are not read again.

    Where the folder cannot be written to, they are read each time.
    """
    try:
        atomic_files.write(built / _ACCEPTED, json.dumps([*_accepted(built), source][-_KEPT:]))
    except OSError as error:
        logger.info("cannot note that the files are the same: %s", error)


def _accepted(built: Path) -> list[str]:
    try:
        content = json.loads((built / _ACCEPTED).read_bytes())
    except (OSError, ValueError):
        return []
    return [entry for entry in content if isinstance(entry, str)] if isinstance(content, list) else []


def _by_name(states: Iterable[State]) -> dict[str, State]:
    """Returns {name with its suffix in small letters: state}: where case does not count, files have several names."""
    by_name = {}
    for state in states:
        path = PurePosixPath(state[0])
        by_name[str(path.with_suffix(path.suffix.lower()))] = state
    return by_name


def _digests(root: Path, states: Sequence[State], num_workers: int | None, label: str) -> dict[str, str]:
    """Returns {path: SHA-256 of the content}, "" for files that cannot be read."""
    threads = max(1, workers.cpu_count() if num_workers is None else num_workers)
    with ThreadPoolExecutor(min(threads, 16)) as pool:
        results = pool.map(partial(_digest, root), states)
        bar = tqdm(results, label, len(states), unit="file", disable=not states)
        return {path: digest for (path, _, _), digest in zip(states, bar, strict=True)}


def _digest(root: Path, state: State) -> str:
    path = root / state[0]
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return ""
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _changes(before: Sequence[str], now: Sequence[str]) -> str:
    known, wanted = set(before), set(now)
    groups = [
        *_grouped("new id(s)", [key for key in now if key not in known]),
        *_grouped("id(s) fewer", [key for key in before if key not in wanted]),
    ]
    return " and ".join(groups)


def _grouped(kind: str, names: Sequence[Any]) -> list[str]:
    """Returns a description of files or ids of a kind, none if there are none."""
    if not names:
        return []
    dots = ", ..." if len(names) > _EXAMPLES else ""
    return [f"{len(names)} {kind} ({', '.join(names[:_EXAMPLES])}{dots})"]
