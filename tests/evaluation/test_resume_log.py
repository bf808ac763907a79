"""What is finished stays finished."""

import struct

import numpy as np
import pytest

from mtl_jax.evaluation.resume_log import ResumeLog

KEYS = [f"image {i}" for i in range(9)]


def entry(i):
    return {"edge": {"loss": np.array([i / 3])}, "boundary": {"id": np.array(f"image {i}"), "png": np.arange(i)}}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "results.partial"
    with ResumeLog(path, KEYS) as progress:
        for i in (2, 0):
            progress.add(i, entry(i))
    return path


def same(found, wanted):
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert {name: set(part) for name, part in a.items()} == {name: set(part) for name, part in b.items()}
        for name, part in b.items():
            for inner, value in part.items():
                np.testing.assert_array_equal(a[name][inner], value, strict=True)


def kept(path, keys=KEYS):
    with ResumeLog(path, keys) as progress:
        same(list(progress.entries()), [entry(i) for i in progress])
        assert all(i in progress for i in progress)
        assert len(progress) == len(list(progress))
        return list(progress)


@pytest.mark.parametrize("lost", [1, 100])
def test_all_but_what_was_being_written_is_there(path, lost):
    with ResumeLog(path, KEYS) as progress:
        progress.add(1, entry(1))
    assert kept(path) == [0, 1, 2]
    with path.open("r+b") as file:  # as a killed process leaves it
        file.truncate(path.stat().st_size - lost)
    assert kept(path) == [0, 2]
    with ResumeLog(path, KEYS) as progress:
        progress.add(1, entry(1))
    assert kept(path) == [0, 1, 2]


def test_entries_of_other_keys_stay_but_do_not_count(path):
    keys = [*KEYS[:2], "image 2 with another prediction", *KEYS[3:]]
    assert kept(path, keys) == [0]
    with ResumeLog(path, keys) as progress:
        progress.add(2, entry(2))
    assert kept(path, keys) == kept(path) == [0, 2]
    assert not kept(path, [f"of another data set {i}" for i in range(9)])


def test_an_image_without_labels(path):
    with ResumeLog(path, KEYS) as progress:
        progress.add(7, {})
    with ResumeLog(path, KEYS) as progress:
        same(list(progress.entries()), [entry(0), entry(2), {}])


def test_a_damaged_file_counts_up_to_the_damage(path):
    """Wherever the damage is: the entries before it are there, it and what follows are not."""
    whole = path.read_bytes()
    (length,) = struct.unpack("<Q", whole[32:40])
    first = 44 + length  # image 2, which was written first
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 255]) + whole[position + 1 :])
        assert kept(path) == ([] if position < first else [2])
    path.write_bytes(whole + bytes(500))  # as the power's failure leaves it
    assert kept(path) == [0, 2]


def test_nothing_is_written_before_something_is_finished(tmp_path):
    with ResumeLog(tmp_path / "a.partial", KEYS) as progress:
        assert not list(progress.entries())
    assert not (tmp_path / "a.partial").exists()


def test_one_at_a_time(path):
    with ResumeLog(path, KEYS), pytest.raises(ValueError, match=r"another evaluation is writing .*results\.partial"):
        ResumeLog(path, KEYS)
    assert kept(path) == [0, 2]


def test_delete(path):
    with ResumeLog(path, KEYS) as progress:
        progress.delete()
    assert not list(path.parent.iterdir())
