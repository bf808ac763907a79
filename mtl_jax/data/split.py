"""Access to the records of a split of a prepared data set."""

import bisect
import functools
import hashlib
import itertools
import threading
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf.message import DecodeError

from mtl_jax.data import built, records
from mtl_jax.data.file_builder import LABELLED
from mtl_jax.labels import IGNORE, Conventions

# Exceptions raised for a record with damaged bytes. array_record raises RuntimeError for a wrong checksum or a
# truncated shard. tfds raises the others, depending on the damage.
_UNREADABLE = (RuntimeError, DecodeError, zlib.error, ValueError, TypeError, LookupError)


class Split:
    """Random access to the records of one split, whose images are not decoded.

    The files are opened at the first access, and are not pickled, so worker processes open them for themselves.

    Args:
        name: Name of the data set.
        split: Name of the split.
        path: Folder of the built data set.
        positions: Positions of the delivered records in the stored split.
        tasks: Tasks whose labels are read.
        partly: True if records have a field with the names of their labelled tasks.
        labelled: Names of the labelled tasks of each delivered record, in place of those that are stored; None = those
            that are stored.
        also: Further fields that are read, such as labels that an augmentation looks at.
    """

    def __init__(
        self,
        name: str,
        split: str,
        path: str,
        positions: Sequence[int],
        tasks: tuple[str, ...],
        partly: bool = False,
        labelled: Sequence[str] | None = None,
        also: tuple[str, ...] = (),
    ):
        self.name, self.split, self.path, self.tasks = name, split, path, tasks
        self._positions, self._labelled, self._also = positions, labelled, also
        self._keys = ("id", "image", *dict.fromkeys((*tasks, *also)), *((LABELLED,) if partly else ()))
        self._ids: list[str] | None = None
        self._source: Any = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def positions(self) -> Sequence[int]:
        """Positions of the delivered records in the stored split."""
        return self._positions

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns a record, with its images encoded.

        Raises:
            IndexError: there is no record of this index.
            CorruptRecordError: the record cannot be read, because its shard is damaged.
        """
        record = self._read(index)
        delivered = {key: record[key] for key in self._keys}
        return delivered if self._labelled is None else {**delivered, LABELLED: self._labelled[index]}

    def where(self, index: int) -> str:
        """Describes a record for errors: data set, split, index, shard (a file in `path`) and index in the shard.

        If only a part of the split is delivered, the description has two indices: `index`, which counts the delivered
        records, and the position in the stored split.
        """
        position = int(self._positions[index])
        ends, names = self._shards
        number = bisect.bisect_right(ends, position)
        inside = position - (ends[number - 1] if number else 0)
        stored = "" if position == index else f" of those chosen, record {position} of the whole split"
        return f"{self.name}, split {self.split}, record {index}{stored}, index {inside} in shard {names[number]}"

    def ids(self) -> list[str]:
        """Returns the ids of the records, in order.

        Raises:
            CorruptRecordError: a record cannot be read.
        """
        if self._ids is None:
            bare = self._bare()
            self._ids = [records.text(bare[index], "id", bare.where(index)) for index in range(len(self))]
        return list(self._ids)

    def fingerprint(self) -> str:
        """Computes a hash that changes with the built files, the positions of the records, the tasks and the labels."""
        files = sorted(path for path in Path(self.path).iterdir() if path.is_file())
        built = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        content = (self.name, self.split, self.tasks, list(self._positions), built)
        chosen = () if self._labelled is None else (list(self._labelled),)
        return hashlib.sha256(repr((*content, *chosen)).encode()).hexdigest()

    def subset(self, positions: Sequence[int]) -> "Split":
        """Returns a split of some of the records.

        Args:
            positions: Indices of the records in this split.
        """
        return Split(
            self.name,
            self.split,
            self.path,
            [self._positions[position] for position in positions],
            self.tasks,
            LABELLED in self._keys,
            None if self._labelled is None else [self._labelled[position] for position in positions],
            self._also,
        )

    def with_labels(self, kept: Mapping[str, Collection[int]]) -> "Split":
        """Returns the split with the labels of some images alone.

        Args:
            kept: {task of the split: indices of the records that have its label}.
        """
        labelled = [" ".join(task for task in self.tasks if index in kept[task]) for index in range(len(self))]
        partly = LABELLED in self._keys
        return Split(self.name, self.split, self.path, self._positions, self.tasks, partly, labelled, self._also)

    def sample(self, index: int, tasks: Iterable[str], conventions: Conventions) -> dict[str, Any]:
        """Returns a decoded record, see `records.decode`.

        Args:
            index: Index of the record.
            tasks: Tasks whose labels are decoded.
            conventions: Label conventions of the data set.

        Raises:
            IndexError: there is no record of this index.
            CorruptRecordError: the record cannot be read or decoded; the message describes it like `where`.
            ValueError: see `records.decode`.
        """
        return records.decode(self[index], tasks, conventions=conventions, where=self.where(index))

    def labels(self, index: int, tasks: Iterable[str], conventions: Conventions) -> dict[str, Any]:
        """Returns a decoded record without the pixels of its image, see `records.decode_labels`.

        The arguments and errors are those of `sample`.
        """
        return records.decode_labels(self[index], tasks, conventions=conventions, where=self.where(index))

    def boundary(self, index: int, edge: np.ndarray) -> np.ndarray:
        """Returns the thin boundary against which predicted edges are scored, bool `[H, W]`.

        If the data set does not store the boundary, it is computed from the edge map, as for the published scores of
        NYUD: the map is treated as one of two regions, edge and no edge, so both sides of every line are marked, and
        then thinned.

        Args:
            index: Index of the record.
            edge: Decoded edge label of the record, `[H, W, 1]`.

        Raises:
            IndexError: there is no record of this index.
            CorruptRecordError: the record cannot be read, or its boundary cannot be decoded.
        """
        record = self._read(index)
        if records.BOUNDARY in record:
            where = self.where(index)
            where = f"{where} (id {records.text(record, 'id', where)!r})"
            return records.array(record, records.BOUNDARY, 1, where)[..., 0] > 0
        from mtl_jax.boundaries.labels import label_boundary  # imports Numba, which training does not need

        return label_boundary((edge[..., 0] >= 0.5) & (edge[..., 0] != IGNORE))

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
        """Returns the id of a damaged record for an error message, or "" if the id cannot be read."""
        source = self._bare()._opened()
        try:
            return f" (id {records.as_text(source[int(self._positions[index])]['id'])!r})"
        except _UNREADABLE:
            return ""

    @functools.cached_property
    def _shards(self) -> tuple[list[int], list[str]]:
        """The shards in order: the position after the last record of each, and the name of the file of each."""
        shards = self._opened().dataset_info.splits[self.split].file_instructions
        ends = itertools.accumulate(shard.take for shard in shards)
        return list(ends), [Path(shard.filename).name for shard in shards]

    def _bare(self) -> "Split":
        """Returns the split without labels, whose records are faster to read."""
        return Split(self.name, self.split, self.path, self._positions, ())

    def _opened(self) -> Any:
        with self._lock:
            if self._source is None:
                builder = built.open_built(Path(self.path))
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
