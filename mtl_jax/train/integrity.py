"""Checks that the files of a checkpoint, which Orbax wrote, are still whole.

Restoring a damaged checkpoint fails as well, but late, in the middle of thousands of reads, and with as many messages.
"""

import json
from pathlib import Path

import tensorstore

_AT_ONCE = 64  # arrays that are read at the same time
_ARRAY = "/.zarray"  # the keys of the descriptions of arrays end so


def damaged_score(directory: Path) -> str:
    """Returns what is wrong with the score of a checkpoint; "" where nothing is wrong or the checkpoint has no score.

    Args:
        directory: Folder of the checkpoint's item `metrics`.
    """
    # A run that is going on may be deleting the file.
    return _no_json(directory / "metrics") if (directory / "metrics").exists() else ""


def damage(directory: Path) -> str:
    """Returns what is wrong with the files of a checkpoint; "" where nothing is wrong.

    Every array is read and unpacked, which finds files that are missing or cut short, but not every flipped bit.

    Args:
        directory: Folder of the step, with the items `state` and `progress`.
    """
    state = directory / "state"
    described = [directory / "progress" / "metadata", state / "_METADATA"]
    described += [path for path in (state / "_sharding", *state.glob("array_metadatas/*")) if path.exists()]
    return next(filter(None, map(_no_json, described)), "") or _lost_array(state)


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
