"""Samples from stored records, which are decoded and then augmented for training or resized for validation."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mtl_jax import tasks as task_table
from mtl_jax.data import augmentation, records, shared_memory
from mtl_jax.data.shared_memory import Batch
from mtl_jax.data.transforms import Sample
from mtl_jax.labels import Conventions

logger = logging.getLogger(__name__)

_MOST_CORRUPT = 10  # corrupt records in a row for which the whole data set counts as unusable


class RecordSource(Protocol):
    """Random access to stored records.

    Errors contain the attributes `name` and `split` of a source, and the result of its method `where(index)`, if it has
    them. A source raises `records.CorruptRecordError` for a single record that cannot be read.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class Load:
    """A function from an index to the decoded record, before any transform.

    Attributes:
        source: Stored records.
        conventions: Label conventions of the data set.
        tasks: Tasks whose labels are decoded.
        recipe: Augmentation.
        size: Height and width of the samples.
    """

    source: RecordSource
    conventions: Conventions
    tasks: tuple[str, ...]
    recipe: augmentation.Recipe
    size: tuple[int, int]

    def __call__(self, index: int, also: Sequence[str] = ()) -> dict[str, Any]:
        """Returns a decoded record.

        Args:
            index: Index of the record.
            also: Tasks whose labels are decoded, too, if the record has them.
        """
        record = self.source[index]
        names = (*self.tasks, *(name for name in also if name in record and name not in self.tasks))
        return records.decode(record, names, conventions=self.conventions, where=_record(self.source, index))

    @property
    def form(self) -> shared_memory.Form:
        """The form {name: (shape, dtype)} of the image and the labels of a sample."""
        rows = [task_table.get(name) for name in self.tasks]
        labels = {row.name: ((*self.size, row.kind.channels), row.kind.dtype) for row in rows}
        return {"image": ((*self.size, 3), "uint8"), **labels}

    def completed(self, sample: Sample) -> Sample:
        """Fills the missing labels of a transformed sample with `tasks.IGNORE`, so that all samples have one form."""
        return {
            name: sample[name] if name in sample else np.full(shape, task_table.IGNORE, dtype)
            for name, (shape, dtype) in self.form.items()
        }


@dataclass(frozen=True)
class Augment:
    """A function from a job of `drawn` to a training sample.

    The sample has the entry "index" and, with `skip_corrupt`, "skipped"; see `loader.train_batches`.

    Attributes:
        load: Function that reads and decodes records.
        border: Labels outside of the image, see `transforms.scale_and_rotate`.
        skip_corrupt: True to replace corrupt records instead of raising an error.
    """

    load: Load
    border: str
    skip_corrupt: bool = False

    @property
    def form(self) -> shared_memory.Form:
        """The form {name: (shape, dtype)} of a sample."""
        names = ("index", "skipped") if self.skip_corrupt else ("index",)
        return {**self.load.form, **dict.fromkeys(names, ((), "int32"))}

    def drawn(self, index: int, rng: np.random.Generator) -> tuple[int, augmentation.Draw]:
        """Draws the augmentation of a record, and returns the job (index, augmentation).

        Grain calls this function; the sample of the job can then be made in another process.
        """
        return index, augmentation.draw(self.load.recipe, rng)

    def __call__(self, job: tuple[int, augmentation.Draw]) -> Batch:
        load, (first, drawn) = self.load, job
        loaded, skipped = self._usable(first)
        sample = augmentation.train_transform(
            loaded, drawn, load.recipe, load.size, self.border, normalised=False, conventions=load.conventions
        )
        index = np.array((first + skipped) % len(load.source), np.int32)
        counted = {"skipped": np.array(skipped, np.int32)} if self.skip_corrupt else {}
        return {**load.completed(sample), "index": index, **counted}

    def _usable(self, first: int) -> tuple[dict[str, Any], int]:
        """Returns the decoded record at `first`, or with `skip_corrupt` the next intact one, and the number skipped."""
        length = len(self.load.source)
        most = min(_MOST_CORRUPT, length)
        skipped = 0
        while True:
            try:
                return self.load((first + skipped) % length, self.load.recipe.looks_at), skipped
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
    """A function from a position to a validation sample.

    The sample has the entries "index" and "valid", see `loader.val_batches`. Positions after the last record give the
    last record as a sample that is not valid.

    Attributes:
        load: Function that reads and decodes records.
    """

    load: Load

    @property
    def form(self) -> shared_memory.Form:
        """The form {name: (shape, dtype)} of a sample."""
        return {**self.load.form, "index": ((), "int32"), "valid": ((), "bool")}

    def __call__(self, position: int) -> Batch:
        load = self.load
        valid = position < len(load.source)
        loaded = load(min(position, len(load.source) - 1))
        sample = augmentation.val_transform(
            loaded, load.size, load.recipe, normalised=False, conventions=load.conventions
        )
        index = np.array(position if valid else -1, np.int32)
        return {**load.completed(sample), "index": index, "valid": np.array(valid)}


def describe(source: RecordSource) -> str:
    """Describes a source for errors by the names of its data set and split, if it has them."""
    split = getattr(source, "split", None)
    return getattr(source, "name", type(source).__name__) + (f", split {split}" if split else "")


def _record(source: RecordSource, index: int) -> str:
    where = getattr(source, "where", None)
    return where(index) if where is not None else f"{describe(source)}, record {index}"
