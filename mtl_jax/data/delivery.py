"""How samples become batches and reach this process: in threads of it, or from worker processes."""

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
    """How samples become batches.

    Attributes:
        make: (job) -> sample.
        batch_size: of the batches delivered here.
        num_workers, prefetch: as in `loader.train_batches`.
    """

    make: Augment | Evaluate
    batch_size: int
    num_workers: int
    prefetch: int

    @property
    def form(self) -> shared_memory.Form:
        """{name: (shape, dtype)} of a batch."""
        return {name: ((self.batch_size, *shape), dtype) for name, (shape, dtype) in self.make.form.items()}

    def batch(self, jobs: Sequence[Any]) -> Batch:
        """The batch of these jobs of `make`."""
        out = {name: np.empty(shape, dtype) for name, (shape, dtype) in self.form.items()}
        self.fill(jobs, out)
        return out

    def fill(self, jobs: Sequence[Any], out: Batch) -> None:
        """Makes samples where they belong; stacking them later would fetch them all from memory again."""
        for i, job in enumerate(jobs):
            for name, x in self.make(job).items():
                out[name][i] = x


class Batches(Iterator[Batch]):
    """The batches of a data set, read ahead by threads or worker processes until the last, an error or `close`.

    Args:
        jobs: for each batch a list of `delivery.make`'s jobs.
        delivery: what becomes of them.

    Raises:
        RuntimeError: from the iterator, a worker process died; and whatever making a sample raises.
    """

    def __init__(self, jobs: grain.MapDataset, delivery: Delivery):
        num_workers, prefetch = delivery.num_workers, delivery.prefetch
        self._source = delivery.make.load.source
        self._slots: shared_memory.Slots | None = None
        self._open = True
        if not num_workers:
            read = grain.ReadOptions(num_threads=prefetch, prefetch_buffer_size=prefetch)
            self._iterator = iter(jobs.map(delivery.batch).to_iter_dataset(read))
            return
        if not flags.FLAGS.is_parsed():  # Grain reads flags before it starts processes
            flags.FLAGS.mark_as_parsed()
        waiting = max(1, prefetch)
        self._slots = shared_memory.Slots(delivery.form, waiting + 2, num_workers)  # one is being filled, one taken
        options = grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=waiting)
        read = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)  # the process is busy without
        batches = jobs.to_iter_dataset(read).map(self._slots.filler(delivery.fill))
        with _without_sigterm():
            self._iterator = iter(
                batches.mp_prefetch(options, worker_init_fn=partial(_init_worker, registry.extensions()))
            )

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
                raise RuntimeError(_DIED.format(where=describe(self._source), what=error)) from error
            raise

    def close(self) -> None:
        """Stops reading ahead and frees what worker processes share; there are no further batches."""
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


def _init_worker(extensions: Sequence[str], index: int, count: int) -> None:
    workers.init_worker(extensions)
    shared_memory.init_worker(index)
