"""Worker processes and shared memory of batches: nothing of them is left, and errors of theirs are told."""

import errno
import gc
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mtl_jax.data import loader
from mtl_jax.data import shared_memory as slots
from tests.data.frames import NYUD, TASKS, Frames, H, W, assert_same, take, train
from tests.marks import slow
from tests.processes import ROOT, alive, needs_proc, shared_memory


@needs_proc
def test_too_little_shared_memory(monkeypatch):
    gc.collect()
    before = shared_memory(os.getpid())

    def fallocate(file, offset, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(slots.os, "posix_fallocate", fallocate)
    with pytest.raises(OSError, match=r"need 0 MB of shared memory, /dev/shm has \d+ MB; use fewer worker processes"):
        next(train(num_workers=1))
    assert shared_memory(os.getpid()) == before


def started_workers(batches):
    """Returns the processes that an iterator starts, as soon as all of its slots are full."""
    before = multiprocessing.active_children()
    next(batches)
    time.sleep(1)  # the slots fill up
    return [process for process in multiprocessing.active_children() if process not in before]


def test_unused_workers_end():
    """Closing does not wait for a worker process that waits for a free slot."""
    batches = train(num_workers=1, prefetch=1)
    (process,) = started_workers(batches)
    batches.close()
    process.join(20)
    assert process.exitcode == 0  # Grain kills a process that has not ended after 25 seconds


def test_unused_workers_end_without_close():
    batches = train(num_workers=1, prefetch=1)
    (process,) = started_workers(batches)
    del batches
    gc.collect()
    process.join(20)
    assert process.exitcode == 0


@needs_proc
@pytest.mark.parametrize("end", [slow("return"), "kill"])
def test_nothing_is_left_of_a_process(end):
    """Neither workers nor memory of a process that returns with an open iterator or is killed."""
    code = (
        "import sys, time\n"
        "from tests.data.frames import train\n"
        "if __name__ == '__main__':\n"
        "    batches = train(num_workers=2, prefetch=1)\n"
        "    next(batches)\n"
        "    time.sleep(1)\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, text=True, **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        tasks_of = Path(f"/proc/{process.pid}/task").glob("*/children")
        children = [child for path in tasks_of for child in path.read_text().split()]
        memory = shared_memory(process.pid)
        if end == "kill":
            process.kill()
        else:
            print(file=process.stdin, flush=True)
        assert process.wait(20) == (0 if end == "return" else -signal.SIGKILL)
    assert len(children) >= 2
    assert len(memory) >= 2
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and (any(map(alive, children)) or any(map(Path.exists, memory))):
        time.sleep(0.1)
    assert not any(map(alive, children))
    assert not any(map(Path.exists, memory))


@needs_proc
def test_a_killed_worker_is_reported_and_replaced():
    batches = train(num_workers=2, prefetch=1)
    got = [next(batches)]
    children = multiprocessing.active_children()
    os.kill(children[0].pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match=r"frames, split train: a worker process died .*-9 means that memory"):
        got.extend(itertools.islice(batches, 1000))
    assert batches.get_state()["position"] == len(got)
    got += take(batches, 3)
    assert_same(got, take(train(), len(got)))


@needs_proc
def test_workers_outlive_signals_to_the_group():
    """A terminal sends Ctrl-C to all processes; workers are not to be hit before they can ignore it."""
    batches = train(num_workers=1, prefetch=1)
    next(batches)
    for child in multiprocessing.active_children():
        status = Path(f"/proc/{child.pid}/status").read_text()
        blocked = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigBlk")), 16)
        assert all(blocked >> (number - 1) & 1 for number in (signal.SIGINT, signal.SIGTERM))
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    batches.close()


@needs_proc
def test_shared_memory_that_nobody_owns_is_removed(tmp_path, monkeypatch):
    """A container whose memory is short loses all its processes at once, and nobody is left to free the memory."""
    monkeypatch.setattr(slots, "_MEMORY", tmp_path)
    ended = multiprocessing.get_context("spawn").Process()
    ended.start()
    ended.join()
    prefix = slots._prefix()
    for name in (
        f"{prefix}{ended.pid}_0_0",
        f"{prefix}{os.getpid()}_0_1",
        "mtl_jax_1_99999_0_0",
        "psm_1",
        f"{prefix}x",
    ):
        (tmp_path / name).touch()
    slots.remove_abandoned()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {f"{prefix}{os.getpid()}_0_1", "mtl_jax_1_99999_0_0", "psm_1", f"{prefix}x"}


@needs_proc
def test_nothing_waits_after_the_last_batch():
    gc.collect()
    before = shared_memory(os.getpid())
    batches = loader.val_batches(
        Frames(5),
        conventions=NYUD,
        tasks=TASKS,
        size=(H, W),
        batch_size=4,
        num_workers=1,
        prefetch=1,
    )
    assert len(list(batches)) == 2
    assert shared_memory(os.getpid()) == before
    assert list(batches) == []


def test_keeping_the_indices_does_not_keep_the_images():
    (batch,) = take(train(num_workers=1), 1)
    assert batch["index"].base is None
