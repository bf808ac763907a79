import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor
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


@pytest.fixture
def calls(monkeypatch):
    """What is synced and renamed, in order."""
    calls, names = [], {}
    fsync, replace, fdopen = os.fsync, Path.replace, os.open

    def open_folder(path, flags):
        descriptor = fdopen(path, flags)
        names[descriptor] = Path(path).name
        return descriptor

    def record_sync(descriptor):
        calls.append(("sync", names.get(descriptor, "file")))
        fsync(descriptor)

    def record_rename(path, target):
        calls.append(("rename", path.read_bytes()))
        return replace(path, target)

    monkeypatch.setattr(os, "open", open_folder)
    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(Path, "replace", record_rename)
    return calls


def test_content_is_on_the_disk_before_the_name_and_the_name_on_return(tmp_path, calls):
    atomic_files.write(tmp_path / "a", "content")
    assert calls == [("sync", "file"), ("rename", b"content"), ("sync", tmp_path.name)]
    calls.clear()
    atomic_files.write(tmp_path / "a", b"other", sync=False)
    assert calls == [("rename", b"other")]
    assert (tmp_path / "a").read_bytes() == b"other"


def test_entries_are_on_the_disk_on_return(tmp_path, calls):
    with FileIO(tmp_path / "a", "a") as file:
        atomic_files.append(file, b"one ")
        assert calls == [("sync", "file")]
        atomic_files.append(file, b"two", sync=False)
        assert calls == [("sync", "file")]
    assert (tmp_path / "a").read_bytes() == b"one two"


def failing(number):
    def fail(descriptor):
        raise OSError(number, os.strerror(number))

    return fail


def test_a_disk_that_fails_is_told_by_the_file(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("before")
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(OSError, match=r"Input/output error: '.*/a'$"):
        atomic_files.write(tmp_path / "a", "content")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "before"}
    with FileIO(tmp_path / "a", "a") as file, pytest.raises(OSError, match=r"Input/output error: '.*/a'$"):
        atomic_files.append(file, b"content")


def test_folders_are_synced_where_that_is_possible(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", failing(errno.EINVAL))
    atomic_files.sync_folder(tmp_path)
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        atomic_files.sync_folder(tmp_path)


def test_two_writers_of_one_file(tmp_path):
    """The file holds what one of them has written, and nothing else is left."""
    contents = [str(number) * 100_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: atomic_files.write(tmp_path / "file", content), contents * 4))
    assert (tmp_path / "file").read_text() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
