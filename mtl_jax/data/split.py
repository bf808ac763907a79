"""The records of a split of a prepared data set."""

import bisect
import functools
import hashlib
import itertools
import threading
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf.message import DecodeError

from mtl_jax.data import records
from mtl_jax.data.file_builder import LABELLED

# What reading a record raises where its bytes are damaged: array_record a RuntimeError (a wrong checksum, a shard cut
# short), tfds the others, depending on what it stumbles over.
_UNREADABLE = (RuntimeError, DecodeError, zlib.error, ValueError, TypeError, LookupError)


class Split:
    """Random access to the records of one split, with images left encoded.

    Opened at first access and pickled without open files, so that worker processes open their own.

    Args:
        name: of the data set.
        split: of it.
        path: folder of the built data.
        positions: of the records to deliver, in the stored order.
        tasks: labels to read.
        partly: records say which labels they have.
    """

    def __init__(
        self, name: str, split: str, path: str, positions: Sequence[int], tasks: tuple[str, ...], partly: bool = False
    ):
        self.name, self.split, self.path, self.tasks = name, split, path, tasks
        self._positions = positions
        self._keys = ("id", "image", *tasks, *((LABELLED,) if partly else ()))
        self._ids: list[str] | None = None
        self._source: Any = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The record, images encoded.

        Raises:
            IndexError: there is no such record.
            CorruptRecordError: it cannot be read, since its shard is damaged.
        """
        record = self._read(index)
        return {key: record[key] for key in self._keys}

    def where(self, index: int) -> str:
        """Names a record for errors: data set, split, its index there, its shard (a file in `path`) and index in that.

        Where not all records of the split are delivered, these are two indices in the split: that among the delivered,
        which `index` is, and the stored one.
        """
        position = int(self._positions[index])
        ends, names = self._shards
        number = bisect.bisect_right(ends, position)
        inside = position - (ends[number - 1] if number else 0)
        stored = "" if position == index else f" of those chosen, record {position} of the whole split"
        return f"{self.name}, split {self.split}, record {index}{stored}, index {inside} in shard {names[number]}"

    def ids(self) -> list[str]:
        """The ids of the records, in order.

        Raises:
            CorruptRecordError: a record cannot be read.
        """
        if self._ids is None:
            bare = self._bare()
            self._ids = [records.text(bare[index], "id", bare.where(index)) for index in range(len(self))]
        return list(self._ids)

    def fingerprint(self) -> str:
        """Another one for other records: another built data set, another version of it, other positions."""
        files = sorted(path for path in Path(self.path).iterdir() if path.is_file())
        built = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        content = (self.name, self.split, self.tasks, list(self._positions), built)
        return hashlib.sha256(repr(content).encode()).hexdigest()

    def subset(self, positions: Sequence[int]) -> "Split":
        """These records only, as positions in this split."""
        return Split(
            self.name,
            self.split,
            self.path,
            [self._positions[position] for position in positions],
            self.tasks,
            LABELLED in self._keys,
        )

    def sample(self, index: int, tasks: Iterable[str], family: str) -> dict[str, Any]:
        """The record decoded by `records.decode`, whose errors then name it as `where` does.

        Raises:
            IndexError: there is no such record.
            CorruptRecordError: it cannot be read or decoded.
            ValueError: see `records.decode`.
        """
        return records.decode(self[index], tasks, family=family, where=self.where(index))

    def boundary(self, index: int, edge: np.ndarray) -> np.ndarray:
        """The thin boundary that predicted edges are scored against, bool `[H, W]`.

        Where the data set does not store it, it is that of the edge map read as a map of two regions, edge and no edge:
        both sides of every line, thinned, as in the published scores of NYUD.

        Args:
            edge: the record's decoded label of edges, `[H, W, 1]`.

        Raises:
            IndexError: there is no such record.
            CorruptRecordError: it cannot be read, or its boundary cannot be decoded.
        """
        record = self._read(index)
        if records.BOUNDARY in record:
            where = self.where(index)
            where = f"{where} (id {records.text(record, 'id', where)!r})"
            return records.array(record, records.BOUNDARY, 1, where)[..., 0] > 0
        from mtl_jax.boundaries.labels import label_boundary  # loads a compiler that training does not need

        return label_boundary(edge[..., 0] >= 0.5)

    def _read(self, index: int) -> Mapping[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name}, split {self.split}: no record {index}, there are {len(self)}")
        source = self._opened()
        try:
            return source[int(self._positions[index])]
        except _UNREADABLE as error:
            reason = f"it cannot be read ({type(error).__name__}: {error})"
            where = f"{self.where(index)}{self._readable_id(index)}"
            raise records.CorruptRecordError(f"{where}: {reason}. {records.REBUILD}") from error

    def _readable_id(self, index: int) -> str:
        """What an error adds for a record that may have a broken label only: its id, "" if that is lost, too."""
        source = self._bare()._opened()
        try:
            return f" (id {records.as_text(source[int(self._positions[index])]['id'])!r})"
        except _UNREADABLE:
            return ""

    @functools.cached_property
    def _shards(self) -> tuple[list[int], list[str]]:
        """Of each shard the position after its last record, and the file's name; the positions are in this order."""
        shards = self._opened().dataset_info.splits[self.split].file_instructions
        ends = itertools.accumulate(shard.take for shard in shards)
        return list(ends), [Path(shard.filename).name for shard in shards]

    def _bare(self) -> "Split":
        """These records without labels, which then need not be decoded."""
        return Split(self.name, self.split, self.path, self._positions, ())

    def _opened(self) -> Any:
        with self._lock:
            if self._source is None:
                builder = tfds.builder_from_directory(self.path)
                skipped = {
                    key: tfds.decode.SkipDecoding()
                    for key, feature in builder.info.features.items()
                    if isinstance(feature, tfds.features.Image) or key not in self._keys
                }
                self._source = builder.as_data_source(split=self.split, decoders=skipped)
            return self._source

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_source", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _source=None, _lock=threading.Lock())

    def __repr__(self) -> str:
        return f"Split({self.name}, {self.split}, {len(self)} records)"
