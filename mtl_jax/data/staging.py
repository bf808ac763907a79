"""Records of an unfinished build on disk, with which an interrupted build continues.

Ids are read in chunks. A chunk without faulty files is written to disk. The name of its file is a hash of everything it
depends on: the builder and its version, the ids, and the size and modification time of every original file. Outdated
chunks are therefore never used, and a chunk with a faulty file is read again when the file has been replaced. Notes on
the images of a chunk lie beside it. Both files begin with the SHA-256 of what follows: a damaged one is written again
from the original files.
"""

import hashlib
import json
import logging
import pickle
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mtl_jax.codecs import pictures
from mtl_jax.labels.readers import Reading
from mtl_jax.runtime import atomic_files, messages, workers

logger = logging.getLogger(__name__)

_VERSION = 3  # of what readers make of a file, and of the chunks' form; chunks of other versions are not used
_DIGEST = hashlib.sha256().digest_size  # bytes
CHUNK = 16  # images in a chunk, and the most that an interruption costs each worker process


class Staging:
    """Stores the records of ids on disk.

    Args:
        folder: Folder of the chunks.
        root: Folder of the original files.
        identity: Names on which the records depend besides the files: the builder, its configuration and version.
        read_record: Function from an id to its record and the problems with its files. It must pickle.
        candidates: Function from an id to the paths of all files that `read_record` tries to read.
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
        """Reads the chunks that are not on disk yet, with a progress bar.

        Args:
            splits: Ids of each split.
            num_workers: Number of worker processes, see `workers.map_ordered`.

        Returns:
            The problems with the files of the ids.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        chunks = dict(chain.from_iterable(self._chunks(ids) for ids in splits))
        jobs = [(path, chunk) for path, chunk in chunks.items() if not path.exists()]
        images = sum(map(len, chunks.values()))
        problems: list[str] = []
        with tqdm(total=images, initial=images - sum(len(chunk) for _, chunk in jobs), unit="image") as bar:
            bar.set_description("reading files")
            results = workers.map_ordered(partial(_read_chunk, self._read), jobs, num_workers=num_workers)
            for (_, chunk), new in zip(jobs, results, strict=True):
                problems += new
                bar.update(len(chunk))
        return problems

    def records(self, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yields the records of ids in order; `fill` must have found no problem with the ids.

        Raises:
            ValueError: A file has changed since `fill`.
        """
        for path, chunk in self._chunks(ids):
            if not path.exists():
                raise ValueError(
                    f"a file of the ids {chunk[0]} to {chunk[-1]} in {self._root} has changed while the data set was "
                    "built; build again when nothing writes to that folder"
                )
            yield from pickle.loads(zlib.decompress(self._whole(path, (path, chunk))))

    def notes(self, ids: Sequence[str]) -> list[tuple[str, str]]:
        """Returns (id, note) for all notes on images of a split's ids, see `pictures.collect_notes`, after `fill`.

        Raises:
            ValueError: A file has changed since `fill`.
        """
        jobs = [job for job in self._chunks(ids) if _notes_file(job[0]).exists()]
        return [(key, text) for job in jobs for key, text in json.loads(self._whole(_notes_file(job[0]), job))]

    def _whole(self, file: Path, job: tuple[Path, Sequence[str]]) -> bytes:
        """Returns the content of a chunk's file, which is written again if it is damaged."""
        if (content := _content(file)) is None:
            _, chunk = job
            logger.warning("%s is damaged; the ids %s to %s are read again", file, chunk[0], chunk[-1])
            problems = _read_chunk(self._read, job)
            if problems or (content := _content(file)) is None:
                raise ValueError(
                    f"{file} is damaged, and the ids {chunk[0]} to {chunk[-1]} in {self._root} cannot be read again: "
                    f"{'; '.join(problems) or 'the disk does not keep what is written'}"
                )
        return content

    def _chunks(self, ids: Sequence[str]) -> list[tuple[Path, Sequence[str]]]:
        chunks = [ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK)]
        return [(self._folder / f"{self._fingerprint(chunk)}.chunk", chunk) for chunk in chunks]

    def _fingerprint(self, chunk: Sequence[str]) -> str:
        files = chain.from_iterable(self._candidates(key) for key in chunk)
        text = json.dumps([_VERSION, self._identity, list(chunk), [file_state(path, self._root) for path in files]])
        return hashlib.sha256(text.encode()).hexdigest()[:24]


def describe(notes: Iterable[tuple[str, str]]) -> list[str]:
    """Returns a line for each text of notes (image, text): how many images it holds for, and names of images."""
    images: dict[str, list[str]] = {}
    for image, text in notes:
        images.setdefault(text, []).append(image)
    return [f"{len(named)} image(s): {text}: {messages.listing(named)}" for text, named in images.items()]


def _read_chunk(read_record: Callable[[str], Reading], job: tuple[Path, Sequence[str]]) -> list[str]:
    path, chunk = job
    readings, notes = [], []
    for key in chunk:
        with pictures.collect_notes() as texts:
            readings.append(read_record(key))
        notes += [(key, text) for text in texts]
    problems = list(chain.from_iterable(new for _, new in readings))
    if not problems:
        if notes:
            _write(_notes_file(path), json.dumps(notes).encode())
        # The fastest compression: large records consist of float maps, which tfds compresses again.
        _write(path, zlib.compress(pickle.dumps([record for record, _ in readings]), level=1))
    return problems


def _write(path: Path, content: bytes) -> None:
    atomic_files.write(path, hashlib.sha256(content).digest() + content)


def _content(path: Path) -> bytes | None:
    """Returns what `_write` wrote, or None where the file is damaged."""
    data = path.read_bytes()
    digest, content = data[:_DIGEST], data[_DIGEST:]
    return content if hashlib.sha256(content).digest() == digest else None


def _notes_file(chunk: Path) -> Path:
    return chunk.with_suffix(".notes")


def file_state(path: Path, root: Path) -> tuple[str, int, int] | None:
    """Returns (path below `root`, size, modification time), which change with a file; None if the file is missing."""
    try:
        status = path.stat()
    except OSError:
        return None
    return str(path.relative_to(root)), status.st_size, status.st_mtime_ns
