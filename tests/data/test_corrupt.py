"""Corrupt records: what the error names, and passing over them in training."""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module

from mtl_jax import data
from mtl_jax.data import catalogue, datasets, loader, records
from tests.data.frames import Frames, assert_same, take, train, val

NYUD = catalogue.FAMILIES["nyud"]

TASKS = ("semseg", "depth")


@dataclass
class Damaged(Frames):
    """Stored records; those in `damaged` have lost the tables that start their JPEG."""

    damaged: tuple[int, ...] = ()

    def __getitem__(self, index):
        record = super().__getitem__(index)
        if index in self.damaged:
            record["image"] = record["image"][:2] + bytes(300) + record["image"][302:]
        return record


@dataclass
class Replaced(Frames):
    """Intact stored records, some of which are copies of others."""

    copies: tuple[tuple[int, int], ...] = ()

    def __getitem__(self, index):
        return super().__getitem__(dict(self.copies).get(index, index))


def skipping(damaged, length=8, name="frames", **kwargs):
    return train(source=Damaged(length, damaged=damaged, name=name), skip_corrupt=True, **kwargs)


def warnings(caplog, name):
    """The warnings about a data set; threads that read ahead may still write about that of an earlier test."""
    logged = [record for record in caplog.records if f" {name}, " in record.getMessage()]
    assert {record.levelno for record in logged} <= {logging.WARNING}
    return [record.getMessage() for record in logged]


def test_the_next_record_stands_in(caplog):
    """With the draw of the record passed over; the last record is followed by the first."""
    stand_ins = {2: (4, 2), 3: (4, 1), 7: (0, 1)}  # {record: (the one in its place, how many are passed over)}
    got = take(skipping((2, 3, 7), name="holes", prefetch=0), 4)
    copies = tuple((record, place) for record, (place, _) in stand_ins.items())
    want = take(train(source=Replaced(8, copies=copies)), 4)
    for batch in want:
        places = [stand_ins.get(int(index), (int(index), 0)) for index in batch["index"]]
        batch["index"], batch["skipped"] = (np.array(column, np.int32) for column in zip(*places, strict=True))
    assert_same(got, want)
    assert {(batch["skipped"].dtype, batch["skipped"].shape) for batch in got} == {(np.dtype(np.int32), (4,))}

    logged = warnings(caplog, "holes")
    assert len(logged) == sum(int(batch["skipped"].sum()) for batch in got)
    for record, times in {2: 1, 3: 2, 7: 1}.items():  # in each of two epochs
        text = f"holes, split train, record {record} (id 'f{record}'): 'image' is corrupt: it is no image"
        assert sum(text in warning for warning in logged) == 2 * times


def test_nothing_changes_without_corrupt_records(caplog):
    got = take(skipping((), name="whole"), 3)
    assert all(not batch.pop("skipped").any() for batch in got)
    assert_same(got, take(train(8), 3))
    assert not warnings(caplog, "whole")


def test_workers_and_resuming_change_nothing(capfd):
    """A worker process passes over the same records, says so on stderr, and its state continues without it."""
    straight = take(skipping((2, 3, 7)), 6)
    assert sum(int(batch["skipped"].sum()) for batch in straight) > 4
    batches = skipping((2, 3, 7), num_workers=1)
    assert_same([next(batches) for _ in range(3)], straight[:3])
    state = batches.get_state()
    batches.close()
    assert "passed over a corrupt record: frames, split train, record 7 (id 'f7'): 'image'" in capfd.readouterr().err
    alone = skipping((2, 3, 7), prefetch=0)
    alone.set_state(state)
    assert_same(take(alone, 3), straight[3:])


def test_processes_share_the_global_batch():
    whole = take(skipping((2, 3, 7)), 3)
    parts = [take(skipping((2, 3, 7), process_index=i, process_count=2), 3) for i in range(2)]
    for batch, *split in zip(whole, *parts, strict=True):
        for key, x in batch.items():
            np.testing.assert_array_equal(x, np.concatenate([part[key] for part in split]))


def test_ten_in_a_row():
    (batch,) = take(skipping(tuple(range(9)), 12, batch_size=12), 1)
    assert batch["skipped"].tolist().count(9) == 1
    assert set(batch["index"]) == {9, 10, 11}
    message = (
        r"^10 records in a row are corrupt, too many to pass over \(data.skip_corrupt\)\. "
        r"The last: frames, split train, record 9 \(id 'f9'\): 'image' is corrupt"
    )
    with pytest.raises(records.CorruptRecordError, match=message):
        take(skipping(tuple(range(10)), 12, batch_size=12, prefetch=0), 1)


def test_all_of_a_small_split():
    with pytest.raises(records.CorruptRecordError, match=r"^4 records in a row are corrupt"):
        take(skipping(tuple(range(4)), 4), 1)


def test_a_wrong_setting_is_not_passed_over(caplog):
    with pytest.raises(ValueError, match="no 'edge' in this data set") as error:
        take(skipping((), name="unlabelled", tasks=("edge",)), 1)
    assert error.type is ValueError
    assert not warnings(caplog, "unlabelled")


def test_validation_never_skips():
    with pytest.raises(records.CorruptRecordError, match=r"record 5 \(id 'f5'\): 'image' is corrupt"):
        val(source=Damaged(8, damaged=(5,)))
    with pytest.raises(TypeError, match="skip_corrupt"):
        val(skip_corrupt=True)


def shards(split):
    return sorted(Path(split.path).glob(f"*-{split.split}.array_record*"))


def copied(split, folder):
    """The same split, of which tests may damage the files."""
    shutil.copytree(split.path, folder / "built")
    return data.Split(split.name, split.split, str(folder / "built"), range(len(split)), split.tasks)


def flip(file, at):
    content = bytearray(file.read_bytes())
    content[at] ^= 0xFF
    file.write_bytes(content)


def unreadable(split):
    """{index: error} of the records that cannot be decoded."""
    errors = {}
    for index in range(len(split)):
        try:
            split.sample(index, split.tasks, NYUD)
        except records.CorruptRecordError as error:
            errors[index] = str(error)
    return errors


@pytest.fixture(scope="module")
def embedded(data_dir):
    return data.open_split(data.prepare("rendered_scenes/nyud_tiny", data_dir), "train", TASKS)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """The embedded data set in three shards."""
    builder = datasets.make_builder("rendered_scenes/nyud_tiny", tmp_path_factory.mktemp("sharded"))
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=3))
    assert builder.info.splits["train"].shard_lengths == [4, 4, 4]
    return data.open_split(builder, "train", TASKS)


def test_damaged_shard(embedded, tmp_path):
    """One byte: the record that it belongs to is lost, the others are as before."""
    split = copied(embedded, tmp_path)
    (file,) = shards(split)
    flip(file, file.stat().st_size // 2)
    ((index, text),) = unreadable(split).items()
    assert text.startswith(
        f"rendered_scenes/nyud_tiny, split train, record {index}, index {index} in shard "
        "rendered_scenes-train.array_record-00000-of-00001: it cannot be read (RuntimeError: Corrupted"
    )
    assert text.endswith("Delete the prepared data set and build it again from intact files")
    with pytest.raises(records.CorruptRecordError, match=f"record {index}, index {index} in shard"):
        split.boundary(index, np.zeros((64, 64, 1)))
    with pytest.raises(records.CorruptRecordError, match=f"record {index}, index {index} in shard"):
        split.ids()

    options = {"conventions": NYUD, "tasks": TASKS, "size": (64, 64), "batch_size": 4}
    with pytest.raises(records.CorruptRecordError, match=f"record {index}, index {index} in shard"):
        list(loader.val_batches(split, **options))
    training = options | {"recipe": "astmt", "seed": 0}
    with pytest.raises(records.CorruptRecordError, match=f"record {index}, .* or set data.skip_corrupt to True"):
        take(loader.train_batches(split, **training), 3)
    got = take(loader.train_batches(split, **training, skip_corrupt=True), 3)
    want = take(loader.train_batches(embedded, **training), 3)
    for a, b in zip(got, want, strict=True):
        hit = b["index"] == index
        np.testing.assert_array_equal(a["skipped"], hit)
        np.testing.assert_array_equal(a["index"], np.where(hit, (index + 1) % 12, b["index"]))
        np.testing.assert_array_equal(a["image"][~hit], b["image"][~hit])


def test_truncated_shard(embedded, tmp_path):
    """Nothing of it can be read, as its table of records is at its end: nor can training go on."""
    split = copied(embedded, tmp_path)
    (file,) = shards(split)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    errors = unreadable(split)
    assert list(errors) == list(range(12))
    assert f"record 3, index 3 in shard {file.name}: it cannot be read (RuntimeError: Corrupted" in errors[3]
    options = {
        "conventions": NYUD,
        "tasks": TASKS,
        "size": (64, 64),
        "batch_size": 4,
        "recipe": "astmt",
        "seed": 0,
    }
    with pytest.raises(records.CorruptRecordError, match=f"^10 records in a row .* in shard {file.name}"):
        take(loader.train_batches(split, **options, skip_corrupt=True), 1)


def test_which_shard(sharded, tmp_path):
    """The shard and the index in it are those at which the file itself cannot be read, in a selection, too."""
    split = copied(sharded, tmp_path)
    file = shards(split)[1]
    flip(file, file.stat().st_size // 3)
    reader = array_record_module.ArrayRecordReader(str(file), options="readahead_buffer_size:0")
    broken = []
    for i in range(4):
        try:
            reader.read([i])
        except RuntimeError:
            broken.append(i)
    (inside,) = broken
    ((index, text),) = unreadable(split).items()
    assert index == 4 + inside
    place = f"index {inside} in shard rendered_scenes-train.array_record-00001-of-00003: it cannot be read"
    assert f"record {index}, {place}" in text
    for i in range(12):
        assert split.where(i).endswith(f"record {i}, index {i % 4} in shard {shards(split)[i // 4].name}")
    chosen = split.subset([0, 11, index])
    assert chosen.where(1).endswith(
        "record 1 of those chosen, record 11 of the whole split, index 3 in shard "
        "rendered_scenes-train.array_record-00002-of-00003"
    )
    ((index_chosen, text),) = unreadable(chosen).items()
    assert index_chosen == 2
    assert f"record 2 of those chosen, record {index} of the whole split, {place}" in text


def rewrite(split, index, change):
    """Stores a record with other bytes, in a shard that is intact as a file."""
    (file,) = shards(split)
    reader = array_record_module.ArrayRecordReader(str(file))
    stored = [reader.read([i])[0] for i in range(len(split))]
    changed = change(stored[index])
    assert changed != stored[index]
    stored[index] = changed
    writer = array_record_module.ArrayRecordWriter(str(file), "group_size:1")
    for record in stored:
        writer.write(record)
    writer.close()


def test_the_id_is_named_where_only_a_label_is_lost(embedded, tmp_path):
    split = copied(embedded, tmp_path)
    rewrite(split, 5, lambda stored: stored.replace(b"\x78\x9c", b"\x00\x00"))  # starts what zlib compressed: depth
    ((index, text),) = unreadable(split).items()
    assert index == 5
    assert f"(id {embedded.ids()[5]!r}): it cannot be read (error: Error -3 while decompressing" in text
    assert split.ids() == embedded.ids()


def test_broken_id(embedded, tmp_path):
    split = copied(embedded, tmp_path)
    name = embedded.ids()[5].encode()
    rewrite(split, 5, lambda stored: stored.replace(name, b"\xff" * len(name)))
    ((index, text),) = unreadable(split).items()
    assert index == 5
    assert "record 5, index 5 in shard rendered_scenes-train.array_record-00000-of-00001: the text 'id'" in text
    message = r"record 5, index 5 in shard .*: the text 'id' is corrupt"
    with pytest.raises(records.CorruptRecordError, match=message):
        split.ids()
    with pytest.raises(records.CorruptRecordError, match=message):
        list(loader.val_batches(split, conventions=NYUD, tasks=TASKS, size=(64, 64), batch_size=4))


def test_record_cut_short(embedded, tmp_path):
    split = copied(embedded, tmp_path)
    rewrite(split, 5, lambda stored: stored[:1000])
    ((index, text),) = unreadable(split).items()
    assert index == 5
    assert "index 5 in shard rendered_scenes-train.array_record-00000-of-00001: it cannot be read (DecodeError" in text


def test_broken_boundary(embedded, monkeypatch):
    """The embedded data set stores none."""
    monkeypatch.setattr(embedded, "_read", lambda index: {"id": b"a", records.BOUNDARY: b"no image"})
    with pytest.raises(records.CorruptRecordError, match=r"index 3 in shard .* \(id 'a'\): 'boundary' is corrupt"):
        embedded.boundary(3, np.zeros((64, 64, 1)))
