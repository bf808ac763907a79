"""What is finished stays finished."""

import numpy as np
import pytest

from mtl_jax.progress import Progress


def entry(i):
    return {"edge": {"loss": np.array([i / 3])}, "boundary": {"id": np.array(f"image {i}"), "png": np.arange(i)}}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "results.partial"
    with Progress(path, "key") as progress:
        for i in (0, 2):
            progress.add(i, entry(i))
    return path


def same(found, wanted):
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert {name: set(part) for name, part in a.items()} == {name: set(part) for name, part in b.items()}
        for name, part in b.items():
            for inner, value in part.items():
                np.testing.assert_array_equal(a[name][inner], value, strict=True)


@pytest.mark.parametrize("lost", [0, 1, 100])
def test_all_but_what_was_being_written_is_there(path, lost):
    whole = path.stat().st_size
    with Progress(path, "key") as progress:
        assert list(progress) == [0, 2]
        progress.add(1, entry(1))
    with path.open("r+b") as file:  # as a killed process leaves it
        file.truncate(path.stat().st_size - lost)
    with Progress(path, "key") as progress:
        assert list(progress) == ([0, 1, 2] if not lost else [0, 2])
        same(list(progress.entries()), [entry(i) for i in progress])
        if lost:
            assert path.stat().st_size == whole
            progress.add(1, entry(1))
    with Progress(path, "key") as progress:
        assert len(progress) == 3


def test_another_key_starts_anew(path):
    with Progress(path, "other") as progress:
        assert not list(progress)
    with Progress(path, "key") as progress:
        assert not len(progress)


def test_an_image_without_labels(path):
    with Progress(path, "key") as progress:
        progress.add(7, {})
    with Progress(path, "key") as progress:
        same(list(progress.entries()), [entry(0), entry(2), {}])


def test_damaged_file(path):
    data = bytearray(path.read_bytes())
    data[32 + 16] ^= 255
    path.write_bytes(data)
    with Progress(path, "key") as progress, pytest.raises(ValueError, match=r"results\.partial is damaged .*delete it"):
        list(progress.entries())


def test_delete(path):
    with Progress(path, "key") as progress:
        progress.delete()
    assert not path.exists()
