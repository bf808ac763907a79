import json
from io import FileIO
from pathlib import Path

import pytest

from mtl_jax.runtime import atomic_files


def test_undefined_numbers_become_null(tmp_path):
    path = atomic_files.write_json(
        tmp_path / "a.json", {"a": [float("nan"), 1.5], "b": {"c": (float("inf"), "text", None)}}
    )
    content = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert content == {"a": [None, 1.5], "b": {"c": [None, "text", None]}}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_told_by_the_file():
    with FileIO("/dev/full", "a") as file, pytest.raises(OSError, match=r"No space left .*'/dev/full'"):
        atomic_files.append(file, b"content")


def test_a_file_that_cannot_be_written_leaves_no_half(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match=r"'.*/a'$"):
        atomic_files.write(tmp_path / "a", "content")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
