"""Checks that the files of a checkpoint, which Orbax wrote, are still as they were written.

A checkpoint has a manifest with the SHA-256 of each file, in the form of the command sha256sum, which can check it:
`cd checkpoints/STEP && sha256sum -c manifest.sha256`. Checkpoints of older versions have no manifest. They are read
instead, which finds files that are missing or cut short, but few flipped bits: most change a number, and nothing else.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorstore

from mtl_jax.runtime import atomic_files

MANIFEST = "manifest.sha256"
_END = "# SHA-256 of the lines above: "  # a comment to sha256sum
# Orbax writes them after the manifest: times and names of types, which nothing that is restored depends on.
METADATA = "_CHECKPOINT_METADATA"
_NOT_LISTED = (METADATA, "commit_success.txt")
_SCORE = "metrics/metrics"
_AT_ONCE = 64  # arrays that are read at the same time
_ARRAY = "/.zarray"  # the keys of the descriptions of arrays end so


def seal(directory: Path) -> None:
    """Writes the manifest of a finished step, and waits until all of the step is on the disk.

    TensorStore syncs the files of arrays; Orbax syncs nothing else.

    Args:
        directory: Folder of the step.

    Raises:
        OSError: A file cannot be read or written.
    """
    listed = {}
    folders = [directory]
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_dir():
            folders.append(path)
        elif name not in _NOT_LISTED:
            with path.open("rb") as file:
                os.fsync(file.fileno())
                listed[name] = hashlib.file_digest(file, "sha256").hexdigest()
    for folder in folders:
        atomic_files.sync_folder(folder)
    _write_manifest(directory, listed)


def add_score(directory: Path, score: Mapping[str, Any]) -> None:
    """Adds the score of a step, which Orbax reads as the metrics of the step, and its SHA-256 to the manifest.

    Args:
        directory: Folder of the step.
        score: Content of the score, ready for JSON.

    Raises:
        OSError: A file cannot be read or written.
    """
    listed, _ = _read_manifest(directory)
    path, text = directory / _SCORE, json.dumps(score)
    if listed:  # steps of older versions have no manifest, and a damaged one stays as it is
        # First: after a crash before the next write the score counts as lost, and is computed again.
        _write_manifest(directory, {**listed, _SCORE: _sha256(text)})
    path.parent.mkdir(exist_ok=True)
    atomic_files.sync_folder(directory)
    atomic_files.write(path, text)


def is_sealed(directory: Path) -> bool:
    """Returns True if a step has a manifest; steps of older versions have none."""
    return (directory / MANIFEST).exists()


def damaged_score(directory: Path) -> str:
    """Returns what is wrong with the score of a step; "" where nothing is wrong or the step has no score.

    Args:
        directory: Folder of the step.
    """
    path = directory / _SCORE
    if not path.exists():
        return ""
    listed, _ = _read_manifest(directory)
    # A run that is going on may be deleting the file.
    problem = _no_json(path) or _changed(path, listed.get(_SCORE))
    return problem if path.exists() else ""


def damaged_metadata(directory: Path) -> str:
    """Returns what is wrong with Orbax's metadata of a step, at which Orbax fails; "" where nothing is wrong.

    Nothing that is restored depends on these metadata. Orbax passes over metadata that are no JSON.
    """
    path = directory / METADATA
    try:
        wrong = not isinstance(json.loads(path.read_bytes()), dict)
    except (OSError, ValueError):
        wrong = False
    return f"{path} holds no JSON object" if wrong else ""


def lost_score(directory: Path) -> bool:
    """Returns True if the manifest of a step lists a score, and there is none."""
    return _SCORE in _read_manifest(directory)[0] and not (directory / _SCORE).exists()


def damage(directory: Path) -> str:
    """Returns what is wrong with the arrays and the progress of a step; "" where nothing is wrong.

    With a manifest, every changed file is found. Without one, every array is read and unpacked, which finds files that
    are missing or cut short, but not every flipped bit.

    Args:
        directory: Folder of the step, with the items `state` and `progress`.
    """
    if is_sealed(directory):
        return changes(directory)
    state = directory / "state"
    described = [directory / "progress" / "metadata", state / "_METADATA"]
    described += [path for path in (state / "_sharding", *state.glob("array_metadatas/*")) if path.exists()]
    return next(filter(None, map(_no_json, described)), "") or _lost_array(state)


def changes(directory: Path) -> str:
    """Returns how arrays and progress of a step differ from its manifest; "" if they do not, or without a manifest."""
    listed, problem = _read_manifest(directory)
    if problem:
        return problem
    # The folder of a damaged score is moved away; `damaged_score` looks at the score.
    checked = {name: digest for name, digest in listed.items() if not name.startswith("metrics/")}
    return next(filter(None, (_changed(directory / name, digest) for name, digest in checked.items())), "")


def _write_manifest(directory: Path, listed: Mapping[str, str]) -> None:
    text = "".join(f"{digest}  {name}\n" for name, digest in listed.items())
    atomic_files.write(directory / MANIFEST, f"{text}{_END}{_sha256(text)}\n")


def _read_manifest(directory: Path) -> tuple[dict[str, str], str]:
    """Returns ({name of a file: its SHA-256}, what is wrong with the manifest); ({}, "") where there is none."""
    path = directory / MANIFEST
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        return {}, ""
    except (OSError, UnicodeDecodeError) as error:
        return {}, f"{path} cannot be read: {error}"
    lines, separator, end = text.rpartition(_END)
    if not separator or end != f"{_sha256(lines)}\n":
        return {}, f"{path} is damaged; delete it to take the files beside it as they are, which may be damaged as well"
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines.splitlines())}, ""


def _changed(path: Path, digest: str | None) -> str:
    """Returns how a file differs from its SHA-256 in a manifest; "" if it does not, or where the SHA-256 is None."""
    if digest is None:
        return ""
    try:
        with path.open("rb") as file:
            same = hashlib.file_digest(file, "sha256").hexdigest() == digest
    except FileNotFoundError:
        return f"{path} is missing"
    except OSError as error:
        return f"{path} cannot be read: {error}"
    return "" if same else f"{path} has changed since it was written; {MANIFEST} has another SHA-256"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _no_json(path: Path) -> str:
    try:
        json.loads(path.read_bytes())
    except FileNotFoundError:
        return f"{path} is missing"
    except ValueError as error:
        return f"{path} is no whole JSON: {error}"
    except OSError as error:
        return f"{path} cannot be read: {error}"
    return ""


def _lost_array(state: Path) -> str:
    base = {"driver": "ocdbt", "base": f"{state.as_uri()}/"}
    try:
        keys = [key.decode() for key in tensorstore.KvStore.open(base).result().list().result()]
        names = [key.removesuffix(_ARRAY) for key in keys if key.endswith(_ARRAY)]
        for start in range(0, len(names), _AT_ONCE):
            arrays = [
                tensorstore.open(
                    {"driver": "zarr", "kvstore": {**base, "path": name}, "fill_missing_data_reads": False}
                )
                for name in names[start : start + _AT_ONCE]
            ]
            for read in [array.result().read() for array in arrays]:
                read.result()
    except ValueError as error:
        return str(error).partition(" [source locations")[0]
    return "" if names else f"{state} holds no arrays; its manifest.ocdbt is missing"
