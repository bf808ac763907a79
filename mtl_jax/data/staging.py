"""Records of a data set that is being built, kept on disk so that an interrupted build goes on where it was.

Ids are read in chunks. A chunk whose files are all in order is written to a file named after what it was made from:
the builder and its version, the ids, and size and modification time of every file. So nothing stale is ever used, and
a chunk with a faulty file is read again once the file has been replaced.
"""

import hashlib
import json
import os
import pickle
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mtl_jax.labels.readers import Reading
from mtl_jax.runtime import workers

CHUNK = 16  # images; also what an interruption costs each worker process at most


class Staging:
    """The records of some ids, on disk.

    Args:
        folder: receives the chunks.
        root: of the original files.
        identity: whatever else the records depend on: the builder, its config and version.
        read_record: id -> (record, what is wrong with its files); must pickle.
        candidates: id -> the files `read_record` looks at, whether they exist or not.
    """

    def __init__(
        self,
        folder: Path,
        root: Path,
        identity: Sequence[str],
        read_record: Callable[[str], Reading],
        candidates: Callable[[str], Sequence[Path]],
    ):
        self._folder, self._root, self._identity = folder, root, tuple(identity)
        self._read, self._candidates = read_record, candidates

    def fill(self, splits: Sequence[Sequence[str]], *, num_workers: int | None = None) -> list[str]:
        """Reads what is not there yet, with a progress bar.

        Args:
            splits: the ids of each.
            num_workers: processes, see `workers.map_ordered`.

        Returns:
            What is wrong with the files of any of the ids.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        chunks = dict(chain.from_iterable(self._chunks(ids) for ids in splits))
        jobs = [(path, chunk) for path, chunk in chunks.items() if not path.exists()]
        images = sum(map(len, chunks.values()))
        problems: list[str] = []
        with tqdm(total=images, initial=images - sum(len(chunk) for _, chunk in jobs), unit="image") as bar:
            bar.set_description("reading files")
            found = workers.map_ordered(partial(_read_chunk, self._read), jobs, num_workers=num_workers)
            for (_, chunk), new in zip(jobs, found, strict=True):
                problems += new
                bar.update(len(chunk))
        return problems

    def records(self, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The records of ids for which `fill` found no problem, in order."""
        for path, _ in self._chunks(ids):
            yield from pickle.loads(zlib.decompress(path.read_bytes()))

    def _chunks(self, ids: Sequence[str]) -> list[tuple[Path, Sequence[str]]]:
        chunks = [ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK)]
        return [(self._folder / f"{self._fingerprint(chunk)}.chunk", chunk) for chunk in chunks]

    def _fingerprint(self, chunk: Sequence[str]) -> str:
        files = chain.from_iterable(self._candidates(key) for key in chunk)
        text = json.dumps([self._identity, list(chunk), [file_state(path, self._root) for path in files]])
        return hashlib.sha256(text.encode()).hexdigest()[:24]


def _read_chunk(read_record: Callable[[str], Reading], job: tuple[Path, Sequence[str]]) -> list[str]:
    path, chunk = job
    readings = [read_record(key) for key in chunk]
    problems = list(chain.from_iterable(found for _, found in readings))
    if not problems:
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        # The fastest level: what is large here are float maps, which tfds stores with a compression of its own.
        temporary.write_bytes(zlib.compress(pickle.dumps([record for record, _ in readings]), level=1))
        temporary.replace(path)  # a chunk cut short never has the name of a whole one
    return problems


def file_state(path: Path, root: Path) -> tuple[str, int, int] | None:
    """What tells whether a file has changed: its name below `root`, size and time; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return str(path.relative_to(root)), found.st_size, found.st_mtime_ns
