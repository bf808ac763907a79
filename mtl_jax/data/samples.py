"""Samples from stored records: decoded, and augmented for training or resized for validation."""

import logging
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mtl_jax import tasks as task_table
from mtl_jax.data import records, shared_memory, transforms
from mtl_jax.data.shared_memory import Batch

logger = logging.getLogger(__name__)

_MOST_CORRUPT = 10  # in a row: then the data set as a whole is unusable, rather than a record of it


class RecordSource(Protocol):
    """Random access to stored records.

    Where there are `name` and `split` attributes, they appear in errors, and so does what a method `where(index)` says.
    A record that cannot be read, unlike the others, is a `records.CorruptRecordError`.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class Load:
    """(index) -> the decoded record, before any transform; the arguments are those of `loader.train_batches`."""

    source: RecordSource
    family: str
    tasks: tuple[str, ...]
    recipe: transforms.Recipe
    size: tuple[int, int]

    def __call__(self, index: int) -> dict[str, Any]:
        record = self.source[index]
        return records.decode(record, self.tasks, family=self.family, where=_record(self.source, index))

    @property
    def form(self) -> shared_memory.Form:
        """{name: (shape, dtype)} of the image and labels of a sample."""
        rows = [task_table.get(name) for name in self.tasks]
        labels = {row.name: ((*self.size, row.kind.channels), row.kind.dtype) for row in rows}
        return {"image": ((*self.size, 3), "uint8"), **labels}

    def completed(self, sample: transforms.Sample) -> transforms.Sample:
        """A transformed sample with ignored maps for the tasks whose label the image lacks: batches keep their form."""
        return {
            name: sample[name] if name in sample else np.full(shape, task_table.IGNORE, dtype)
            for name, (shape, dtype) in self.form.items()
        }


@dataclass(frozen=True)
class Augment:
    """(job from `drawn`) -> a training sample, with the entry "index" and under `skip_corrupt` "skipped"."""

    load: Load
    border: str
    skip_corrupt: bool = False

    @property
    def form(self) -> shared_memory.Form:
        """{name: (shape, dtype)} of a sample."""
        names = ("index", "skipped") if self.skip_corrupt else ("index",)
        return {**self.load.form, **dict.fromkeys(names, ((), "int32"))}

    def drawn(self, index: int, rng: np.random.Generator) -> tuple[int, transforms.Draw]:
        """What there is to do: with it, samples are made at another place than where Grain draws."""
        return index, transforms.draw(self.load.recipe, rng)

    def __call__(self, job: tuple[int, transforms.Draw]) -> Batch:
        load, (first, drawn) = self.load, job
        loaded, skipped = self._usable(first)
        sample = transforms.train_transform(loaded, drawn, load.recipe, load.size, self.border, normalised=False)
        index = np.array((first + skipped) % len(load.source), np.int32)
        counted = {"skipped": np.array(skipped, np.int32)} if self.skip_corrupt else {}
        return {**load.completed(sample), "index": index, **counted}

    def _usable(self, first: int) -> tuple[dict[str, Any], int]:
        """The record at `first` or, under `skip_corrupt`, the next one that is intact; and how many come before it."""
        length = len(self.load.source)
        most = min(_MOST_CORRUPT, length)
        skipped = 0
        while True:
            try:
                return self.load((first + skipped) % length), skipped
            except records.CorruptRecordError as error:
                skipped += 1
                if not self.skip_corrupt:
                    advice = "or set data.skip_corrupt to True to train without such records"
                    raise records.CorruptRecordError(f"{error}, {advice}") from error
                if skipped == most:
                    count = f"{most} records in a row are corrupt, too many to pass over (data.skip_corrupt)"
                    raise records.CorruptRecordError(f"{count}. The last: {error}") from error
                logger.warning("passed over a corrupt record: %s", error)


@dataclass(frozen=True)
class Evaluate:
    """(position) -> a validation sample, with "index" and "valid"; past the end the last one, not valid."""

    load: Load

    @property
    def form(self) -> shared_memory.Form:
        """{name: (shape, dtype)} of a sample."""
        return {**self.load.form, "index": ((), "int32"), "valid": ((), "bool")}

    def __call__(self, position: int) -> Batch:
        load = self.load
        valid = position < len(load.source)
        loaded = load(min(position, len(load.source) - 1))
        sample = transforms.val_transform(loaded, load.size, load.recipe, normalised=False)
        index = np.array(position if valid else -1, np.int32)
        return {**load.completed(sample), "index": index, "valid": np.array(valid)}


def describe(source: RecordSource) -> str:
    """Names it for errors: data set and split, where it knows them."""
    split = getattr(source, "split", None)
    return getattr(source, "name", type(source).__name__) + (f", split {split}" if split else "")


def _record(source: RecordSource, index: int) -> str:
    where = getattr(source, "where", None)
    return where(index) if where is not None else f"{describe(source)}, record {index}"
