"""Batches from prepared data: shuffled and augmented for training, in order and padded for validation.

Built on Grain. What a batch holds depends only on the seed and its position, so the number of worker processes, the
prefetch depth and an interruption change nothing, and the batches of several JAX processes together are those of one.
"""

import contextlib
import logging
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grain
import numpy as np
from absl import flags

from mtl_jax import tasks as task_table
from mtl_jax import workers
from mtl_jax.data import records, shared, transforms
from mtl_jax.data.shared import Batch

logger = logging.getLogger(__name__)

_MOST_CORRUPT = 10  # in a row: then the data set as a whole is unusable, rather than a record of it
_DIED = (
    "{where}: a worker process died ({what}). Exit code -9 means that memory was short, -7 that shared memory was: use "
    "fewer worker processes (config.data.num_workers) or smaller batches"
)


class Source(Protocol):
    """Random access to stored records.

    Where there are `name` and `split` attributes, they appear in errors, and so does what a method `where(index)` says.
    A record that cannot be read, unlike the others, is a `records.CorruptRecordError`.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


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
    source: Source,
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
    load = _Load(source, family, task_table.ordered(tasks), transforms.get_recipe(recipe), size)
    part = _Part(process_index, process_count, batch_size)
    return TrainBatches(_Augment(load, border, skip_corrupt), part, seed, num_workers, prefetch, start)


class TrainBatches(Iterator[Batch]):
    """The iterator of `train_batches`.

    `get_state()` is a JSON-serialisable dict; `set_state` continues after the last batch delivered before it was taken,
    also with other numbers of worker processes, JAX processes or prefetched batches.
    """

    def __init__(
        self,
        augment: "_Augment",
        part: "_Part",
        seed: int,
        num_workers: int,
        prefetch: int,
        start: int,
    ):
        length = len(augment.load.source)
        self._identity = {"seed": seed, "batch_size": part.batch_size, "length": length}
        self.steps_per_epoch = steps_per_epoch(length, part.batch_size)
        self._delivery = _Delivery(augment, part.size, num_workers, prefetch)
        dataset = grain.MapDataset.range(length).seed(seed).shuffle()
        dataset = dataset[: self.steps_per_epoch * part.batch_size]
        # The generator is keyed by the position in the global order: each process takes its part after drawing.
        self._global = _grouped(dataset.random_map(augment.drawn), part.batch_size).repeat(None)
        self._dataset = self._global.map(part)
        self._position = 0
        self._iterator: _Batches | None = None
        self._move(start)

    def __next__(self) -> Batch:
        if self._iterator is None:
            self._iterator = _Batches(self._dataset[self._position :], self._delivery)
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
    source: Source,
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
        raise ValueError(f"{_where(source)} has no images; build the data set again")
    load = _Load(source, family, task_table.ordered(tasks), transforms.get_recipe(recipe), size)
    part = _Part(process_index, process_count, batch_size)
    positions = grain.MapDataset.range(-(-length // batch_size) * batch_size)
    delivery = _Delivery(_Evaluate(load), part.size, num_workers, prefetch)
    return _Batches(_grouped(positions, batch_size).map(part), delivery)


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


@dataclass(frozen=True)
class _Load:
    source: Source
    family: str
    tasks: tuple[str, ...]
    recipe: transforms.Recipe
    size: tuple[int, int]

    def __call__(self, index: int) -> dict[str, Any]:
        record = self.source[index]
        return records.decode(record, self.tasks, family=self.family, where=_record(self.source, index))

    @property
    def form(self) -> shared.Form:
        """{name: (shape, dtype)} of the image and labels of a sample."""
        rows = [task_table.get(name) for name in self.tasks]
        labels = {row.name: ((*self.size, row.label_channels), row.label_dtype) for row in rows}
        return {"image": ((*self.size, 3), "uint8"), **labels}

    def completed(self, sample: transforms.Sample) -> transforms.Sample:
        """A transformed sample with ignored maps for the tasks whose label the image lacks: batches keep their form."""
        return {
            name: sample[name] if name in sample else np.full(shape, task_table.IGNORE, dtype)
            for name, (shape, dtype) in self.form.items()
        }


@dataclass(frozen=True)
class _Augment:
    load: _Load
    border: str
    skip_corrupt: bool = False

    @property
    def form(self) -> shared.Form:
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
class _Evaluate:
    load: _Load

    @property
    def form(self) -> shared.Form:
        return {**self.load.form, "index": ((), "int32"), "valid": ((), "bool")}

    def __call__(self, position: int) -> Batch:
        load = self.load
        valid = position < len(load.source)
        loaded = load(min(position, len(load.source) - 1))
        sample = transforms.val_transform(loaded, load.size, load.recipe, normalised=False)
        index = np.array(position if valid else -1, np.int32)
        return {**load.completed(sample), "index": index, "valid": np.array(valid)}


@dataclass(frozen=True)
class _Delivery:
    """How samples become batches, and reach this process."""

    make: "_Augment | _Evaluate"
    batch_size: int
    num_workers: int
    prefetch: int

    @property
    def form(self) -> shared.Form:
        """{name: (shape, dtype)} of a batch."""
        return {name: ((self.batch_size, *shape), dtype) for name, (shape, dtype) in self.make.form.items()}

    def batch(self, jobs: Sequence[Any]) -> Batch:
        out = {name: np.empty(shape, dtype) for name, (shape, dtype) in self.form.items()}
        self.fill(jobs, out)
        return out

    def fill(self, jobs: Sequence[Any], out: Batch) -> None:
        """Makes samples where they belong; stacking them later would fetch them all from memory again."""
        for i, job in enumerate(jobs):
            for name, x in self.make(job).items():
                out[name][i] = x


class _Batches(Iterator[Batch]):
    """The batches of a data set, read ahead by threads or worker processes until the last, an error or `close`."""

    def __init__(self, jobs: grain.MapDataset, delivery: _Delivery):
        num_workers, prefetch = delivery.num_workers, delivery.prefetch
        self._source = delivery.make.load.source
        self._slots: shared.Slots | None = None
        self._open = True
        if not num_workers:
            read = grain.ReadOptions(num_threads=prefetch, prefetch_buffer_size=prefetch)
            self._iterator = iter(jobs.map(delivery.batch).to_iter_dataset(read))
            return
        if not flags.FLAGS.is_parsed():  # Grain reads flags before it starts processes
            flags.FLAGS.mark_as_parsed()
        waiting = max(1, prefetch)
        self._slots = shared.Slots(delivery.form, waiting + 2, num_workers)  # one is being filled, one taken
        options = grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=waiting)
        read = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)  # the process is busy without
        batches = jobs.to_iter_dataset(read).map(self._slots.filler(delivery.fill))
        with _without_sigterm():
            self._iterator = iter(batches.mp_prefetch(options, worker_init_fn=_init_worker))

    def __next__(self) -> Batch:
        if not self._open:
            raise StopIteration
        try:
            with _without_sigterm():
                batch = next(self._iterator)
            return batch if self._slots is None else self._slots.take(batch)
        except BaseException as error:
            self.close()
            if "terminated unexpectedly" in str(error):
                raise RuntimeError(_DIED.format(where=_where(self._source), what=error)) from error
            raise

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        if self._slots is not None:
            self._slots.stop()
        if hasattr(self._iterator, "close"):
            self._iterator.close()
        if self._slots is not None:
            self._slots.release()


@contextlib.contextmanager
def _without_sigterm() -> Iterator[None]:
    """What is started in here never gets it.

    SLURM sends it to all of a job's processes, but training wants to finish its step, and its evaluation, first.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _init_worker(index: int, count: int) -> None:
    workers.init_worker()
    shared.init_worker(index)


def _where(source: Source) -> str:
    split = getattr(source, "split", None)
    return getattr(source, "name", type(source).__name__) + (f", split {split}" if split else "")


def _record(source: Source, index: int) -> str:
    where = getattr(source, "where", None)
    return where(index) if where is not None else f"{_where(source)}, record {index}"


def _check(num_workers: int, prefetch: int, batch_size: int, process_index: int, process_count: int) -> None:
    for name, value in {"num_workers": num_workers, "prefetch": prefetch}.items():
        if value < 0:
            raise ValueError(f"{name} is {value}, expected at least 0")
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index is {process_index}, expected 0 <= process_index < {process_count}")
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(f"batch_size is {batch_size}, expected a positive multiple of the {process_count} processes")
