"""Batches from worker processes through shared memory that is used again.

Fresh shared memory costs a page fault for every 4 KB, on both sides: for full-size images that takes as long as making
them. So every worker process has a few slots of the size of a batch, fills them in turn, and each is free again as soon
as the batch has been copied out of it.
"""

import ctypes
import errno
import math
import os
import shutil
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import numpy as np

Batch = dict[str, np.ndarray]
Form = Mapping[str, tuple[tuple[int, ...], str]]  # {name: (shape, dtype)}
Fill = Callable[[Any, Batch], None]

_ALIGNMENT = 64  # bytes, of the arrays; the first so many hold the slot's state
_FULL, _CLOSED = 0, 1  # bytes of the state
_POLL_SECONDS = 0.0005
_SMALL = 4096  # bytes
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_MEMORY = Path("/dev/shm")  # where Linux limits shared memory
_worker = 0


@dataclass(frozen=True)
class Filled:
    """What travels from a worker process instead of the batch: the name of the slot that holds it."""

    slot: str


@dataclass(eq=False)
class Slots:
    """Shared memory for batches of one form; belongs to the process that receives the batches.

    Attributes:
        form: form of the batches.
        count: slots of each worker process.
        workers: how many worker processes fill them.

    Raises:
        OSError: there is not enough shared memory.
    """

    form: Form
    count: int
    workers: int
    _memory: dict[str, shared_memory.SharedMemory] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        size, count = _offsets(self.form)[-1], self.count * self.workers
        # Without a call of `release`, memory goes with this object, or at the latest with the process.
        self._release = weakref.finalize(self, _release, self._memory)
        try:
            for _ in range(count):
                memory = shared_memory.SharedMemory(create=True, size=size)
                self._memory[memory.name] = memory
                _reserve(memory)
        except OSError as error:
            self.release()
            if error.errno != errno.ENOSPC:
                raise
            raise OSError(
                f"the worker processes need {size * count >> 20} MB of shared memory, {_MEMORY} has "
                f"{shutil.disk_usage(_MEMORY).free >> 20} MB; use fewer worker processes (config.data.num_workers) or "
                "smaller batches, or allow more (docker run --shm-size)"
            ) from error

    def filler(self, fill: Fill) -> "Filler":
        """What fills the slots in the worker processes: a callable that can be sent to them.

        Args:
            fill: (what the batch is made of, the arrays to write it to).
        """
        names = list(self._memory)
        return Filler(self.form, fill, tuple(tuple(names[i :: self.workers]) for i in range(self.workers)))

    def take(self, filled: Filled) -> Batch:
        """The batch in a slot, which is free afterwards."""
        memory = self._memory[filled.slot]
        content = _content(memory)
        copy = content.copy()  # as one, because large blocks get large pages
        content[_FULL] = 0
        arrays = _arrays(copy, self.form)
        # Whoever keeps a batch's indices should not keep its images with them.
        return {name: x.copy() if x.nbytes < _SMALL else x for name, x in arrays.items()}

    def stop(self) -> None:
        """Ends the waiting of worker processes for a free slot; they must be about to be ended."""
        _close(self._memory)

    def release(self) -> None:
        """Gives the memory back."""
        self._release()


@dataclass(eq=False)
class Filler:
    """Fills the slots of the worker process that it runs in, one after another."""

    form: Form
    fill: Fill
    names: tuple[tuple[str, ...], ...]
    _memory: list[shared_memory.SharedMemory] = field(default_factory=list, init=False)
    _filled: int = field(default=0, init=False)

    def __call__(self, job: Any) -> Filled:
        if not self._memory:  # in the worker process; opened memory does not pickle
            self._memory = [shared_memory.SharedMemory(name) for name in self.names[_worker]]
        memory = self._memory[self._filled % len(self._memory)]
        self._filled += 1
        content = _content(memory)
        while content[_FULL]:
            if content[_CLOSED]:
                raise RuntimeError("the batches are no longer wanted")
            time.sleep(_POLL_SECONDS)
        self.fill(job, _arrays(content, self.form))
        content[_FULL] = 1
        return Filled(memory.name)


def init_worker(index: int) -> None:
    """Readies a worker process: says which slots are its own, and lets it keep the memory it has freed.

    By default glibc returns the memory of large arrays to the kernel at once and then asks for it again, at a page
    fault for every 4 KB: a third of the time that the transforms take.
    """
    global _worker
    _worker = index
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # only in glibc
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 25)
        mallopt(_M_TRIM_THRESHOLD, 1 << 29)


def _close(slots: Mapping[str, shared_memory.SharedMemory]) -> None:
    for memory in slots.values():
        _content(memory)[_CLOSED] = 1


def _release(slots: dict[str, shared_memory.SharedMemory]) -> None:
    _close(slots)  # worker processes may still wait if nobody called `stop`
    while slots:
        _, memory = slots.popitem()
        memory.close()
        memory.unlink()


def _reserve(memory: shared_memory.SharedMemory) -> None:
    """Fetches the memory now: more than there is can be had, and would end the process that first writes to it."""
    if (path := _MEMORY / memory.name).exists():  # on Linux
        file = os.open(path, os.O_RDWR)
        try:
            os.posix_fallocate(file, 0, memory.size)
        finally:
            os.close(file)


def _offsets(form: Form) -> list[int]:
    """Where the arrays start, and where the last one ends."""
    offsets = [_ALIGNMENT]
    for shape, dtype in form.values():
        size = math.prod(shape) * np.dtype(dtype).itemsize
        offsets.append(offsets[-1] + -(-size // _ALIGNMENT) * _ALIGNMENT)
    return offsets


def _content(memory: shared_memory.SharedMemory) -> np.ndarray:
    return np.frombuffer(memory.buf, np.uint8)  # type: ignore[arg-type]  # None only after `close`


def _arrays(content: np.ndarray, form: Form) -> Batch:
    return {
        name: np.ndarray(shape, dtype, buffer=content.data, offset=offset)
        for (name, (shape, dtype)), offset in zip(form.items(), _offsets(form), strict=False)
    }
