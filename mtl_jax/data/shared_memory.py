"""Transfer of batches from worker processes through reused shared memory.

New shared memory costs a page fault for every 4 KB in both processes. For full-size images this takes as long as making
the images. Therefore every worker process has a few slots of the size of a batch and fills them in turn. A slot is free
again as soon as its batch has been copied.
"""

import contextlib
import errno
import itertools
import logging
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

from mtl_jax.runtime import allocator

Batch = dict[str, np.ndarray]
Form = Mapping[str, tuple[tuple[int, ...], str]]  # {name: (shape, dtype)}
Fill = Callable[[Any, Batch], None]

_ALIGNMENT = 64  # alignment of the arrays in bytes, and number of bytes before them that hold the state of the slot
_FULL, _CLOSED = 0, 1  # positions in the state of a slot
_POLL_SECONDS = 0.0005
_SMALL = 4096  # bytes; smaller arrays of a batch are copied out of its memory block
_MEMORY = Path("/dev/shm")  # file system of shared memory on Linux, whose size is limited
_worker = 0
_serial = itertools.count()

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Filled:
    """The name of the slot that holds a batch, which a worker process sends instead of the batch."""

    slot: str


@dataclass(eq=False)
class Slots:
    """Shared memory for batches of one form, owned by the process that receives the batches.

    Attributes:
        form: Shapes and dtypes of a batch.
        count: Number of slots of each worker process.
        workers: Number of worker processes.

    Raises:
        OSError: there is not enough shared memory.
    """

    form: Form
    count: int
    workers: int
    _memory: dict[str, shared_memory.SharedMemory] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        size, count = _offsets(self.form)[-1], self.count * self.workers
        # If `release` is not called, the memory is freed with this object, or at the end of the process.
        self._release = weakref.finalize(self, _release, self._memory)
        remove_abandoned()
        try:
            for number in range(count):
                name = f"{_prefix()}{os.getpid()}_{next(_serial)}_{number}"
                memory = shared_memory.SharedMemory(name, create=True, size=size)
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
        """Returns a callable that fills the slots; it can be sent to the worker processes.

        Args:
            fill: Function (description of a batch, arrays to write the batch to).
        """
        names = list(self._memory)
        return Filler(self.form, fill, tuple(tuple(names[i :: self.workers]) for i in range(self.workers)))

    def take(self, filled: Filled) -> Batch:
        """Copies the batch out of a slot and frees the slot."""
        memory = self._memory[filled.slot]
        content = _content(memory)
        copy = content.copy()  # one copy of the whole slot, because large blocks get large pages
        content[_FULL] = 0
        arrays = _arrays(copy, self.form)
        # Small arrays are copied again, so that a caller who keeps them does not keep the images in memory.
        return {name: x.copy() if x.nbytes < _SMALL else x for name, x in arrays.items()}

    def stop(self) -> None:
        """Ends the waiting of worker processes for a free slot by an error; call it before they are stopped."""
        _close(self._memory)

    def release(self) -> None:
        """Frees the memory."""
        self._release()


@dataclass(eq=False)
class Filler:
    """Fills the slots of the worker process in which it is called, one after another."""

    form: Form
    fill: Fill
    names: tuple[tuple[str, ...], ...]
    _memory: list[shared_memory.SharedMemory] = field(default_factory=list, init=False)
    _filled: int = field(default=0, init=False)

    def __call__(self, job: Any) -> Filled:
        if not self._memory:  # opened here, in the worker process, because opened memory does not pickle
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
    """Prepares a worker process: sets the index of its slots, and makes the process keep freed memory.

    By default glibc returns the memory of large arrays to the kernel at once. Each new array then costs a page fault
    for every 4 KB, which is a third of the time of the transforms.
    """
    global _worker
    _worker = index
    allocator.set_options({allocator.MMAP_THRESHOLD: 1 << 25, allocator.TRIM_THRESHOLD: 1 << 29})


def remove_abandoned() -> None:
    """Removes the slots of processes that were killed together with all their helpers and could not free them.

    Only slots of this user whose process belongs to the same container are looked at.
    """
    for path in _MEMORY.glob(f"{_prefix()}*") if _MEMORY.is_dir() else ():
        owner = path.name.removeprefix(_prefix()).partition("_")[0]
        with contextlib.suppress(OSError):  # another process has removed it, or it belongs to another user
            if owner.isdecimal() and not _is_alive(int(owner)):
                path.unlink()
                logger.info("removed %s, shared memory of the process %s, which is gone", path, owner)


def _prefix() -> str:
    """Returns how names of slots begin: with the namespace in which numbers of processes have their meaning."""
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        namespace = 0
    return f"mtl_jax_{namespace}_"


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _close(slots: Mapping[str, shared_memory.SharedMemory]) -> None:
    for memory in slots.values():
        _content(memory)[_CLOSED] = 1


def _release(slots: dict[str, shared_memory.SharedMemory]) -> None:
    _close(slots)  # worker processes may still wait if `stop` was not called
    while slots:
        _, memory = slots.popitem()
        memory.close()
        memory.unlink()


def _reserve(memory: shared_memory.SharedMemory) -> None:
    """Allocates the pages of shared memory at once.

    Otherwise Linux grants more memory than there is, and kills the process that writes to a missing page.
    """
    if (path := _MEMORY / memory.name).exists():  # True on Linux
        file = os.open(path, os.O_RDWR)
        try:
            os.posix_fallocate(file, 0, memory.size)
        finally:
            os.close(file)


def _offsets(form: Form) -> list[int]:
    """Returns the offsets in bytes at which the arrays of a slot start, and the offset at which the last one ends."""
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
