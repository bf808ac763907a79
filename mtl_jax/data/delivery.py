"""Assembly of batches from samples, in threads of this process or in worker processes."""

import contextlib
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import grain
import numpy as np
from absl import flags

from mtl_jax import registry
from mtl_jax.data import shared_memory
from mtl_jax.data.samples import Augment, Evaluate, describe
from mtl_jax.data.shared_memory import Batch
from mtl_jax.runtime import workers

_DIED = (
    "{where}: a worker process died ({what}). Exit code -9 means that memory was short, -7 that shared memory was: use "
    "fewer worker processes (config.data.num_workers) or smaller batches"
)


@dataclass(frozen=True)
class Delivery:
    """The assembly of batches from samples.

    Attributes:
        make: Function from a job to a sample.
        batch_size: Number of images in the batches of this process.
        num_workers: Number of worker processes, see `loader.train_batches`.
        prefetch: Number of batches made in advance, see `loader.train_batches`.
    """

    make: Augment | Evaluate
    batch_size: int
    num_workers: int
    prefetch: int

    @property
    def form(self) -> shared_memory.Form:
        """The form of a batch, {name: (shape, dtype)}."""
        return {name: ((self.batch_size, *shape), dtype) for name, (shape, dtype) in self.make.form.items()}

    def batch(self, jobs: Sequence[Any]) -> Batch:
        """Makes the batch of a sequence of jobs."""
        out = {name: np.empty(shape, dtype) for name, (shape, dtype) in self.form.items()}
        self.fill(jobs, out)
        return out

    def fill(self, jobs: Sequence[Any], out: Batch) -> None:
        """Writes the samples of jobs to the arrays of a batch, which is faster than stacking the samples later."""
        for i, job in enumerate(jobs):
            for name, x in self.make(job).items():
                out[name][i] = x


class Batches(Iterator[Batch]):
    """Iterates over batches, which threads or worker processes make in advance.

    It ends with the last batch, with an error, or with `close`.

    Args:
        jobs: List of jobs of `delivery.make` for each batch.
        delivery: Assembly of the batches.

    Raises:
        RuntimeError: a worker process died. The iterator raises it, and passes on the exceptions of `delivery.make`.
    """

    def __init__(self, jobs: grain.MapDataset, delivery: Delivery):
        num_workers, prefetch = delivery.num_workers, delivery.prefetch
        self._source = delivery.make.load.source
        self._slots: shared_memory.Slots | None = None
        self._open, self._starts = True, False
        if not num_workers:
            read = grain.ReadOptions(num_threads=prefetch, prefetch_buffer_size=prefetch)
            self._iterator = iter(jobs.map(delivery.batch).to_iter_dataset(read))
            return
        if not flags.FLAGS.is_parsed():  # Grain reads absl flags before it starts processes
            flags.FLAGS.mark_as_parsed()
        waiting = max(1, prefetch)
        # Two more slots than waiting batches: one that is being filled, and one that is being copied.
        self._slots = shared_memory.Slots(delivery.form, waiting + 2, num_workers)
        options = grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=waiting)
        read = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)  # a worker process needs no reading threads
        batches = jobs.to_iter_dataset(read).map(self._slots.filler(delivery.fill))
        self._starts = True
        with _without_signals(signal.SIGTERM, signal.SIGINT):
            self._iterator = iter(
                batches.mp_prefetch(options, worker_init_fn=partial(_init_worker, registry.extensions()))
            )

    def __next__(self) -> Batch:
        if not self._open:
            raise StopIteration
        try:
            # Grain starts its workers with the first batch. Later SIGINT has to end the waiting for a batch.
            with _without_signals(signal.SIGTERM, *([signal.SIGINT] if self._starts else [])):
                batch = next(self._iterator)
            self._starts = False
            return batch if self._slots is None else self._slots.take(batch)
        except BaseException as error:
            self.close()
            if "terminated unexpectedly" in str(error):
                raise RuntimeError(_DIED.format(where=describe(self._source), what=error)) from error
            raise

    def close(self) -> None:
        """Stops making batches in advance and frees the shared memory; there are no further batches."""
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
def _without_signals(*numbers: signal.Signals) -> Iterator[None]:
    """Blocks signals in processes and threads that are started within this context.

    SLURM sends SIGTERM to all processes of a job, and a terminal SIGINT to all processes of a group, but the run first
    finishes its step and its evaluation, for which it needs its workers.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set(numbers))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _init_worker(extensions: Sequence[str], index: int, count: int) -> None:
    workers.init_worker(extensions)
    shared_memory.init_worker(index)
