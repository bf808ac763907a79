"""Batches: order, coverage, independence of workers and processes, resuming, errors."""

import errno
import gc
import itertools
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from mtl_jax import tasks
from mtl_jax.data import augmentation, catalogue, loader, records, samples
from mtl_jax.data import shared_memory as slots
from tests.marks import slow
from tests.processes import ROOT, alive, needs_proc, shared_memory

NYUD = catalogue.FAMILIES["nyud"]
PASCAL_LABELS = catalogue.FAMILIES["pascal"]

H, W = 24, 32
TASKS = ("semseg", "depth")


@dataclass
class Frames:
    """Picklable stored records; `broken` has half a JPEG."""

    length: int
    broken: int = -1
    name: str = "frames"
    split: str = "train"

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        rng = np.random.default_rng(int(index))
        image = cv2.imencode(".jpg", rng.integers(0, 256, (H, W, 3), dtype=np.uint8))[1].tobytes()
        return {
            "id": f"f{index}".encode(),
            "image": image[: len(image) // 2] if index == self.broken else image,
            "semseg": cv2.imencode(".png", rng.integers(0, 40, (H, W), dtype=np.uint8))[1].tobytes(),
            "depth": rng.uniform(0.5, 9, (H, W, 1)).astype(np.float32),
        }


def train(length=11, **kwargs):
    defaults = {
        "conventions": NYUD,
        "tasks": TASKS,
        "recipe": "astmt",
        "size": (H, W),
        "batch_size": 4,
        "seed": 3,
    }
    source = kwargs.pop("source", None) or Frames(length)
    return loader.train_batches(source, **(defaults | kwargs))


def val(length=11, **kwargs):
    defaults = {"conventions": NYUD, "tasks": TASKS, "size": (H, W), "batch_size": 4}
    source = kwargs.pop("source", None) or Frames(length)
    return list(loader.val_batches(source, **(defaults | kwargs)))


def take(batches, count):
    got = [next(batches) for _ in range(count)]
    batches.close()
    return got


def assert_same(got, want):
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert set(a) == set(b)
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def test_batch():
    (batch,) = take(train(), 1)
    assert {key: (x.shape, x.dtype) for key, x in batch.items()} == {
        "image": ((4, H, W, 3), np.uint8),
        "semseg": ((4, H, W, 1), np.uint8),
        "depth": ((4, H, W, 1), np.float32),
        "index": ((4,), np.int32),
    }


PASCAL = ("semseg", "human_parts", "sal", "normals", "edge")


@dataclass
class Partly:
    """Stored records of which number i lacks the label i mod 5; what is stored in its place is no map."""

    length: int

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        rng = np.random.default_rng(int(index))
        png = cv2.imencode(".png", rng.integers(1, 6, (H, W), dtype=np.uint8))[1].tobytes()
        colours = cv2.imencode(".png", rng.integers(1, 256, (H, W, 3), dtype=np.uint8))[1].tobytes()
        missing = PASCAL[index % 5]
        labels = {name: colours if name == "normals" else png for name in PASCAL} | {missing: b""}
        labelled = " ".join(name for name in PASCAL if name != missing)
        return {"id": f"f{index}", "image": colours, **labels, "labelled": labelled.encode()}


def test_missing_labels_are_ignored():
    """Batches have one form: a map of 255 stands for a label that an image lacks."""
    kwargs = {"source": Partly(5), "conventions": PASCAL_LABELS, "tasks": PASCAL, "batch_size": 5}
    (batch,) = take(train(**kwargs), 1)
    (same,) = take(train(**kwargs, num_workers=1), 1)
    assert_same([same], [batch])
    for got in (batch, *val(**kwargs)):
        for name in PASCAL:
            row = tasks.get(name)
            assert got[name].shape == (5, H, W, row.kind.channels)
            assert got[name].dtype == row.kind.dtype
            lacking = (got[name] == tasks.IGNORE).all(axis=(1, 2, 3))
            np.testing.assert_array_equal(lacking, got["index"] % 5 == PASCAL.index(name))


def test_epochs():
    """Each epoch: 2 batches of 4 from 11 images, none twice, in another order and with other draws."""
    batches = train(11, recipe="astmt")
    assert batches.steps_per_epoch == loader.steps_per_epoch(11, 4) == 2
    epochs = [np.concatenate([b["index"] for b in take(batches, 2)]) for _ in range(6)]
    for epoch in epochs:
        assert len(set(epoch.tolist())) == 8
        assert 0 <= epoch.min() <= epoch.max() < 11
    assert len({tuple(epoch) for epoch in epochs}) == 6
    assert set(np.concatenate(epochs).tolist()) == set(range(11))  # what is dropped changes

    whole = np.concatenate([b["index"] for b in take(train(12), 3)])
    assert sorted(whole) == list(range(12))


def test_draws_change_between_epochs():
    first, second = take(train(4), 2)
    images = [dict(zip(b["index"].tolist(), b["image"], strict=True)) for b in (first, second)]
    assert all(not np.array_equal(images[0][i], images[1][i]) for i in range(4))


def test_seed():
    assert_same(take(train(), 3), take(train(), 3))
    other = take(train(seed=4), 3)
    assert any(not np.array_equal(a["index"], b["index"]) for a, b in zip(take(train(), 3), other, strict=True))


@pytest.mark.parametrize("prefetch", [0, 1, 5])
def test_prefetch_changes_nothing(prefetch):
    assert_same(take(train(prefetch=prefetch), 5), take(train(), 5))


def test_workers_change_nothing():
    """Two worker processes: the same batches, and a state taken with them continues without, and the reverse."""
    straight = take(train(), 8)
    batches = train(num_workers=2)
    assert_same([next(batches) for _ in range(3)], straight[:3])
    state = json.loads(json.dumps(batches.get_state()))
    batches.close()
    alone = train()
    alone.set_state(state)
    assert_same(take(alone, 3), straight[3:6])
    again = train(num_workers=1, prefetch=1, start=6)
    assert_same(take(again, 2), straight[6:])


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_the_global_batch(count):
    whole = take(train(), 5)
    parts = [take(train(process_index=i, process_count=count), 5) for i in range(count)]
    for k, batch in enumerate(whole):
        for key in batch:
            np.testing.assert_array_equal(np.concatenate([part[k][key] for part in parts]), batch[key])


@pytest.mark.parametrize("position", [1, 2, 5])
def test_resume(position):
    straight = take(train(), 8)
    first = train()
    for _ in range(position):
        next(first)
    state = first.get_state()
    assert state == {"position": position, "seed": 3, "batch_size": 4, "length": 11}
    next(first)
    first.set_state(state)  # back in the same iterator
    assert_same(take(first, 8 - position), straight[position:])
    assert_same(take(train(start=position), 8 - position), straight[position:])


@pytest.mark.parametrize(("field", "value"), [("seed", 4), ("batch_size", 2), ("length", 12)])
def test_resume_mismatch(field, value):
    with pytest.raises(ValueError, match=f"has {field} {value}, this run"):
        train().set_state(train().get_state() | {field: value})
    with pytest.raises(ValueError, match=f"has no '{field}'"):
        train().set_state({key: x for key, x in train().get_state().items() if key != field})


@pytest.mark.parametrize("count", [1, 2])
def test_val(count):
    """11 images: 3 global batches of 4, the last padded by one."""
    parts = [val(process_index=i, process_count=count) for i in range(count)]
    assert {len(part) for part in parts} == {3}
    batches = [batch for part in parts for batch in part]
    assert all(batch["image"].shape == (4 // count, H, W, 3) for batch in batches)
    index = np.concatenate([batch["index"] for batch in batches])
    valid = np.concatenate([batch["valid"] for batch in batches])
    assert valid.dtype == bool
    assert index.dtype == np.int32
    assert sorted(index[valid]) == list(range(11))
    assert index[~valid].tolist() == [-1]


def test_val_is_repeatable_and_exact():
    source = Frames(5)
    first, again = val(source=source, num_workers=1), val(source=source)
    assert_same(first, again)
    np.testing.assert_array_equal(first[0]["depth"][2], source[2]["depth"])
    assert len(val(3)) == 1


@pytest.mark.parametrize("num_workers", [0, 1])
def test_corrupt_image(num_workers):
    """The error is the one paragraph of `records.decode`, also when a worker process raised it."""
    message = (
        r"^frames, split train, record 5 \(id 'f5'\): 'image' is corrupt: the JPEG ends early \(\d+ bytes\)\. Delete"
    )
    with pytest.raises(records.CorruptRecordError, match=message) as error:
        take(train(source=Frames(8, broken=5), num_workers=num_workers), 2)
    error.match("build it again from intact files, or set data.skip_corrupt to True to train without such records")
    if not num_workers:
        with pytest.raises(records.CorruptRecordError, match=message) as error:
            val(source=Frames(8, broken=5))
        assert "skip_corrupt" not in str(error.value)  # scores need every image


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 12}, "batch_size is 12, but the training split has 11 images"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"process_count": 3}, "expected a positive multiple of the 3 processes"),
        ({"process_index": 1}, "process_index is 1"),
        ({"num_workers": -1}, "num_workers is -1"),
        ({"prefetch": -1}, "prefetch is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"start": -1}, "position in the training data is -1"),
        ({"border": "mirror"}, "unknown border 'mirror'"),
        ({"recipe": "heavy"}, "unknown augmentation recipe 'heavy'"),
        ({"tasks": ("colour",)}, "unknown task 'colour'"),
    ],
)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        train(**change)


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
        "from tests.data.test_loader import train\n"
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


@pytest.mark.parametrize("num_workers", [0, slow(2)])
def test_an_error_does_not_move_on(num_workers):
    """Who tries again gets the same batch, or its error; never the next one under its number."""
    source = Frames(12, broken=5)
    batches = train(source=source, num_workers=num_workers)
    at = [any(index == 5 for index, _ in batches.draws(i)) for i in range(3)].index(True)
    delivered = [next(batches) for _ in range(at)]
    for _ in range(2):
        with pytest.raises(ValueError, match="record 5"):
            next(batches)
        assert batches.get_state()["position"] == at
    assert_same(delivered, take(train(12), at))


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


def test_missing_label():
    with pytest.raises(ValueError, match=r"no 'edge' in this data set; it has image, semseg, depth"):
        next(train(tasks=("semseg", "edge")))


def test_empty_val():
    with pytest.raises(ValueError, match="frames, split train has no images"):
        val(0)


def test_pickles():
    augment = samples.Augment(samples.Load(Frames(4), NYUD, TASKS, augmentation.get_recipe("astmt"), (H, W)), "zero")
    again = pickle.loads(pickle.dumps(augment))
    want, got = (f(f.drawn(2, np.random.default_rng(0))) for f in (augment, again))
    assert_same([got], [want])


@pytest.mark.slow
@pytest.mark.usefixtures("worker_processes")
def test_worker_processes_change_no_augmented_sample():
    """The numbers are drawn before an image is read, so crops that look at labels do not depend on who makes them."""
    text = "custom:scale=0.5-2,flip=0.5,rotation=9,photometric=true,jitter=0.4+0.4+0.4+0.1,cutout=0.5"
    for recipe in ("invpt", text):
        want = take(train(recipe=recipe, num_workers=0, prefetch=0), 4)
        assert_same(take(train(recipe=recipe, num_workers=2), 4), want)
        assert_same(take(train(recipe=recipe, start=2), 2), want[2:])


def test_a_crop_looks_at_classes_that_are_not_learned():
    both = take(train(recipe="invpt", tasks=("semseg", "depth")), 4)
    depth = take(train(recipe="invpt", tasks=("depth",)), 4)
    for one, two in zip(both, depth, strict=True):
        assert set(two) == {"image", "depth", "index"}
        np.testing.assert_array_equal(one["image"], two["image"])
        np.testing.assert_array_equal(one["depth"], two["depth"])
