"""Batches: order, coverage, independence of workers and processes, resuming, errors of records."""

import json
import pickle
from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from mtl_jax import tasks
from mtl_jax.data import augmentation, catalogue, loader, records, samples
from tests.data.frames import NYUD, TASKS, Frames, H, W, assert_same, take, train, val
from tests.marks import slow

PASCAL_LABELS = catalogue.FAMILIES["pascal"]


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
