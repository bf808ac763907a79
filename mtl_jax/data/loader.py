"""Batches from prepared data: shuffled and augmented for training, in order and padded for validation.

Built on Grain. What a batch holds depends only on the seed and its position, so the number of worker processes, the
prefetch depth and an interruption change nothing, and the batches of several JAX processes together are those of one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grain

from mtl_jax import tasks as task_table
from mtl_jax.data import transforms
from mtl_jax.data.delivery import Batches, Delivery
from mtl_jax.data.samples import Augment, Evaluate, Load, RecordSource, describe
from mtl_jax.data.shared_memory import Batch


def steps_per_epoch(length: int, batch_size: int) -> int:
    """Whole global batches in a data set; the rest of each epoch's permutation is dropped.

    Raises:
        ValueError: a batch needs more images than there are.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, expected at least 1")
    if batch_size > length:
        raise ValueError(
            f"batch_size is {batch_size}, but the training split has {length} images; set it to at most {length}"
        )
    return length // batch_size


def train_batches(
    source: RecordSource,
    *,
    family: str,
    tasks: Sequence[str],
    recipe: str | transforms.Recipe,
    size: tuple[int, int],
    batch_size: int,
    seed: int,
    border: str = "zero",
    num_workers: int = 0,
    prefetch: int = 2,
    process_index: int = 0,
    process_count: int = 1,
    start: int = 0,
    skip_corrupt: bool = False,
) -> "TrainBatches":
    """Endless training batches; every epoch visits each image at most once, in a new order.

    Under `skip_corrupt` the next record of the split, that of index (i + 1) mod the length, and so on, stands in for a
    corrupt one, with the augmentation drawn for that. Such a record may come twice in an epoch; the batches depend on
    nothing else than before, and each record passed over is logged as a warning.

    Args:
        source: stored records, for example from `datasets.open_split`; must pickle when `num_workers` > 0.
        family: label conventions, "nyud" or "pascal".
        tasks: labels to deliver.
        recipe: augmentation, name or `transforms.Recipe`.
        size: height and width delivered.
        batch_size: images in the global batch, that of all processes together.
        seed: of order and augmentation, 0 <= seed < 2^32.
        border: class labels outside the image, see `transforms.scale_and_rotate`.
        num_workers: worker processes; 0 works in threads of this process.
        prefetch: batches made in advance by each worker process; without them, each in a thread of its own, or on
            demand for 0.
        process_index: which part of each global batch to deliver ...
        process_count: ... of how many, each of consecutive images.
        start: global batches to skip, as if they had been drawn.
        skip_corrupt: pass over corrupt records instead of stopping.

    Returns:
        An iterator of {"image": uint8 [b, H, W, 3], task: [b, H, W, C], "index": int32 [b]} with
        b = batch_size / process_count; its state can be saved, see `TrainBatches`. Images are normalised on the device
        (`mtl_jax.images.normalise`): a quarter to copy. Where an image lacks a label, it is all `tasks.IGNORE`.
        "index" is that of the record in the batch, and under `skip_corrupt` there is another entry, "skipped" int32
        [b]: how many corrupt records were passed over for each image.

    Raises:
        ValueError: an argument is out of range. The iterator raises the others:
        records.CorruptRecordError: a corrupt record, or under `skip_corrupt` ten in a row.
    """
    _check(num_workers, prefetch, batch_size, process_index, process_count)
    steps_per_epoch(len(source), batch_size)
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed}, expected 0 <= seed < 2^32")
    if border not in transforms.BORDERS:
        raise ValueError(f"unknown border {border!r}; the borders are {', '.join(transforms.BORDERS)}")
    load = Load(source, family, task_table.ordered(tasks), transforms.get_recipe(recipe), size)
    part = _Part(process_index, process_count, batch_size)
    return TrainBatches(Augment(load, border, skip_corrupt), part, seed, num_workers, prefetch, start)


class TrainBatches(Iterator[Batch]):
    """The iterator of `train_batches`.

    `get_state()` is a JSON-serialisable dict; `set_state` continues after the last batch delivered before it was taken,
    also with other numbers of worker processes, JAX processes or prefetched batches.
    """

    def __init__(
        self,
        augment: Augment,
        part: "_Part",
        seed: int,
        num_workers: int,
        prefetch: int,
        start: int,
    ):
        length = len(augment.load.source)
        self._identity = {"seed": seed, "batch_size": part.batch_size, "length": length}
        self.steps_per_epoch = steps_per_epoch(length, part.batch_size)
        self._delivery = Delivery(augment, part.size, num_workers, prefetch)
        dataset = grain.MapDataset.range(length).seed(seed).shuffle()
        dataset = dataset[: self.steps_per_epoch * part.batch_size]
        # The generator is keyed by the position in the global order: each process takes its part after drawing.
        self._global = _grouped(dataset.random_map(augment.drawn), part.batch_size).repeat(None)
        self._dataset = self._global.map(part)
        self._position = 0
        self._iterator: Batches | None = None
        self._move(start)

    def __next__(self) -> Batch:
        if self._iterator is None:
            self._iterator = Batches(self._dataset[self._position :], self._delivery)
        try:
            batch = next(self._iterator)
        except BaseException:
            self.close()  # what was being made belongs to other positions than the next call's
            raise
        self._position += 1
        return batch

    def get_state(self) -> dict[str, int]:
        """{"position": global batches delivered so far, and what must agree on restoring: seed, batch_size, length}"""
        return {"position": self._position, **self._identity}

    def set_state(self, state: dict[str, int]) -> None:
        """Continues where `state` was taken.

        Raises:
            ValueError: the state belongs to another seed, batch size or data set; the message names the field.
        """
        for field, ours in self._identity.items():
            if field not in state:
                raise ValueError(f"the saved state of the training data has no {field!r}; it has {sorted(state)}")
            if state[field] != ours:
                raise ValueError(
                    f"the saved state of the training data has {field} {state[field]}, this run {ours}; continue with "
                    "the setting and data of the saved run, or start a new run"
                )
        self._move(state["position"])

    def draws(self, position: int) -> list[tuple[int, transforms.Draw]]:
        """(record, its augmentation) for each image of this process's part of a global batch, counted from 0.

        As drawn: under `skip_corrupt` another record may stand in for this one.
        """
        return self._dataset[position]

    def records(self, position: int) -> list[int]:
        """The records of a whole global batch, all processes' parts, as drawn."""
        return [index for index, _ in self._global[position]]

    def close(self) -> None:
        """Stops reading ahead; the next batch starts it again."""
        iterator, self._iterator = self._iterator, None
        if iterator is not None:
            iterator.close()

    def _move(self, position: int) -> None:
        if position < 0:
            raise ValueError(f"the position in the training data is {position}, expected at least 0")
        self.close()
        self._position = position


def val_batches(
    source: RecordSource,
    *,
    family: str,
    tasks: Sequence[str],
    size: tuple[int, int],
    batch_size: int,
    recipe: str | transforms.Recipe = "none",
    num_workers: int = 0,
    prefetch: int = 2,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Every image once, in order; the last global batch is filled up, so all processes yield the same number.

    The arguments are those of `train_batches`; of the recipe only depth's interpolation is used. There is no
    `skip_corrupt`: a score is one over every image of the split.

    Returns:
        An iterator of batches with two more entries: "valid" bool [b], and "index" int32 [b]. What fills the last batch
        repeats the last image, with `valid` False and index -1.

    Raises:
        ValueError: an argument is out of range, or the split is empty. The iterator raises the other:
        records.CorruptRecordError: a corrupt record.
    """
    _check(num_workers, prefetch, batch_size, process_index, process_count)
    length = len(source)
    if length < 1:
        raise ValueError(f"{describe(source)} has no images; build the data set again")
    load = Load(source, family, task_table.ordered(tasks), transforms.get_recipe(recipe), size)
    part = _Part(process_index, process_count, batch_size)
    positions = grain.MapDataset.range(-(-length // batch_size) * batch_size)
    delivery = Delivery(Evaluate(load), part.size, num_workers, prefetch)
    return Batches(_grouped(positions, batch_size).map(part), delivery)


def _grouped(jobs: grain.MapDataset, batch_size: int) -> grain.MapDataset:
    return jobs.batch(batch_size, drop_remainder=True, batch_fn=list)


@dataclass(frozen=True)
class _Part:
    """What a process delivers of each global batch: consecutive images, so that together they come in one's order."""

    process_index: int
    process_count: int
    batch_size: int

    @property
    def size(self) -> int:
        return self.batch_size // self.process_count

    def __call__(self, jobs: list[Any]) -> list[Any]:
        start = self.process_index * self.size
        return jobs[start : start + self.size]


def _check(num_workers: int, prefetch: int, batch_size: int, process_index: int, process_count: int) -> None:
    for name, value in {"num_workers": num_workers, "prefetch": prefetch}.items():
        if value < 0:
            raise ValueError(f"{name} is {value}, expected at least 0")
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index is {process_index}, expected 0 <= process_index < {process_count}")
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(f"batch_size is {batch_size}, expected a positive multiple of the {process_count} processes")
