"""Batches from prepared data: shuffled and augmented for training, in order and padded for validation.

The loader is built on Grain. A batch depends only on the seed and on its position. The number of worker processes, the
prefetch depth and an interruption therefore change nothing, and the batches of several JAX processes together equal
those of a single one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grain

from mtl_jax import tasks as task_table
from mtl_jax.data import augmentation, transforms
from mtl_jax.data.delivery import Batches, Delivery
from mtl_jax.data.samples import Augment, Evaluate, Load, RecordSource, describe
from mtl_jax.data.shared_memory import Batch
from mtl_jax.labels import Conventions


def steps_per_epoch(length: int, batch_size: int) -> int:
    """Returns the number of whole batches in an epoch; the remaining images of the epoch's permutation are dropped.

    Args:
        length: Number of images in the data set.
        batch_size: Number of images in a global batch.

    Raises:
        ValueError: a batch has no image, or more images than the data set.
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
    conventions: Conventions,
    tasks: Sequence[str],
    recipe: str | augmentation.Recipe,
    size: tuple[int, int],
    batch_size: int,
    seed: int,
    border: str = "",
    num_workers: int = 0,
    prefetch: int = 2,
    process_index: int = 0,
    process_count: int = 1,
    start: int = 0,
    skip_corrupt: bool = False,
) -> "TrainBatches":
    """Creates an endless iterator over training batches. Every epoch has each image at most once, in a new order.

    With `skip_corrupt`, a corrupt record i is replaced by the next intact one of the split, (i + 1) mod the length and
    so on, with the augmentation drawn for record i. A replacement may occur twice in an epoch. Each skipped record is
    logged as a warning.

    Args:
        source: Stored records, for example from `datasets.open_split`. It must pickle if `num_workers` > 0.
        conventions: Label conventions of the data set.
        tasks: Tasks whose labels are delivered.
        recipe: Augmentation, as the name of a recipe or as an `augmentation.Recipe`.
        size: Height and width of the delivered images.
        batch_size: Number of images in the global batch, which all processes share.
        seed: Seed of order and augmentation, 0 <= seed < 2^32.
        border: Labels outside of the image: "zero", "ignore", or "" for that of the conventions, see
            `transforms.scale_and_rotate`.
        num_workers: Number of worker processes; 0 means threads of this process.
        prefetch: Number of batches that each worker process makes in advance. Without worker processes, the number of
            threads that make one batch each in advance; 0 makes batches on demand.
        process_index: Index of this process. Process i delivers the i-th group of consecutive images of a global batch.
        process_count: Number of processes that share a global batch.
        start: Number of global batches to skip.
        skip_corrupt: True to replace corrupt records instead of raising an error.

    Returns:
        An iterator of {"image": uint8 `[b, H, W, 3]`, task: `[b, H, W, C]`, "index": int32 `[b]`} with
        b = batch_size / process_count. Its state can be saved, see `TrainBatches`. Images are not normalised, which
        reduces the copy to the device to a quarter; `mtl_jax.images.normalise` does so there. A missing label is filled
        with `tasks.IGNORE`. "index" is the index of the record in the source. With `skip_corrupt`, the entry "skipped",
        int32 `[b]`, is the number of corrupt records that were skipped for each image.

    Raises:
        ValueError: an argument is out of range.
        records.CorruptRecordError: a record is corrupt, or with `skip_corrupt` ten records in a row are. The iterator
            raises it.
    """
    _check(num_workers, prefetch, batch_size, process_index, process_count)
    steps_per_epoch(len(source), batch_size)
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed}, expected 0 <= seed < 2^32")
    if border not in ("", *transforms.BORDERS):
        raise ValueError(f"unknown border {border!r}; the borders are {', '.join(transforms.BORDERS)}")
    load = Load(source, conventions, task_table.ordered(tasks), augmentation.get_recipe(recipe), size)
    part = _Part(process_index, process_count, batch_size)
    return TrainBatches(Augment(load, border, skip_corrupt), part, seed, num_workers, prefetch, start)


class TrainBatches(Iterator[Batch]):
    """The iterator of `train_batches`.

    `get_state` returns a JSON-serialisable dict. `set_state` continues after the last batch that was delivered before
    the state was taken, also with other numbers of worker processes, JAX processes or prefetched batches.
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
        # The random numbers depend on the position in the global order, so each process takes its part after drawing.
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
            self.close()  # batches made in advance do not belong to the position of the next call
            raise
        self._position += 1
        return batch

    def get_state(self) -> dict[str, int]:
        """Returns {"position": number of delivered global batches, "seed": ..., "batch_size": ..., "length": ...}.

        The last three must be the same when the state is restored.
        """
        return {"position": self._position, **self._identity}

    def set_state(self, state: dict[str, int]) -> None:
        """Continues at the position where `state` was taken.

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

    def draws(self, position: int) -> list[tuple[int, augmentation.Draw]]:
        """Returns (index of the record, augmentation) for each image of this process in a global batch.

        With `skip_corrupt`, another record may replace a drawn one.

        Args:
            position: Position of the global batch, counted from 0.
        """
        return self._dataset[position]

    def records(self, position: int) -> list[int]:
        """Returns the indices of the drawn records of a whole global batch, i.e. of all processes."""
        return [index for index, _ in self._global[position]]

    def close(self) -> None:
        """Stops making batches in advance; the request of the next batch starts it again."""
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
    conventions: Conventions,
    tasks: Sequence[str],
    size: tuple[int, int],
    batch_size: int,
    recipe: str | augmentation.Recipe = "none",
    num_workers: int = 0,
    prefetch: int = 2,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Creates an iterator over validation batches, with every image once and in order.

    The last global batch is padded, so all processes yield the same number of batches. The arguments are those of
    `train_batches`; of the recipe the resampling and the placement are used. Corrupt records cannot be skipped, because
    scores must cover every image of the split.

    Returns:
        An iterator of batches with the entries "valid", bool `[b]`, and "index", int32 `[b]`, besides image and labels.
        The padding of the last batch repeats the last image, with "valid" False and "index" -1.

    Raises:
        ValueError: an argument is out of range, or the split is empty.
        records.CorruptRecordError: a record is corrupt. The iterator raises it.
    """
    _check(num_workers, prefetch, batch_size, process_index, process_count)
    length = len(source)
    if length < 1:
        raise ValueError(f"{describe(source)} has no images; build the data set again")
    load = Load(source, conventions, task_table.ordered(tasks), augmentation.get_recipe(recipe), size)
    part = _Part(process_index, process_count, batch_size)
    positions = grain.MapDataset.range(-(-length // batch_size) * batch_size)
    delivery = Delivery(Evaluate(load), part.size, num_workers, prefetch)
    return Batches(_grouped(positions, batch_size).map(part), delivery)


def _grouped(jobs: grain.MapDataset, batch_size: int) -> grain.MapDataset:
    return jobs.batch(batch_size, drop_remainder=True, batch_fn=list)


@dataclass(frozen=True)
class _Part:
    """The consecutive images of each global batch that a process delivers.

    The parts of all processes, one after the other, are the global batch.
    """

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
