"""Chunks of an unfinished build that a crash or a failing disk has damaged."""

import random

import pytest

from mtl_jax.codecs import pictures
from mtl_jax.data import staging
from mtl_jax.data.staging import Staging

IDS = [f"{number:02}" for number in range(staging.CHUNK + 2)]  # two chunks
RECORDS = [{"id": key, "text": f"content of {key}"} for key in IDS]
NOTES = [("01", "the note on 01"), ("17", "the note on 17")]


@pytest.fixture
def make(tmp_path):
    """Returns a function that makes the staging of a build; `make.read` lists the ids that it reads."""
    root = tmp_path / "originals"
    root.mkdir()
    for key in IDS:
        (root / key).write_text(f"content of {key}")

    def read_record(key):
        make.read.append(key)
        if not (text := (root / key).read_text()):
            return {}, [f"{key} is empty"]
        if key in dict(NOTES):
            pictures.note(f"the note on {key}")
        return {"id": key, "text": text}, []

    def make():
        make.read = []
        return Staging(tmp_path / "staging", root, ["test"], read_record, lambda key: [root / key])

    make.root = root
    first = make()
    assert first.fill([IDS], num_workers=0) == []
    assert make.read == IDS
    return make


def flipped(content):
    content = bytearray(content)
    rng = random.Random(len(content))
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


DAMAGES = {
    "empty": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "half": lambda content: content[: len(content) // 2],
    "bit": flipped,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("suffix", [".chunk", ".notes"])
def test_a_damaged_file_is_written_again(make, tmp_path, damage, suffix, caplog):
    files = sorted((tmp_path / "staging").glob(f"*{suffix}"))
    assert len(files) == 2
    for path in files:
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
    again = make()
    assert again.fill([IDS], num_workers=0) == []
    assert list(again.records(IDS)) == RECORDS
    assert again.notes(IDS) == NOTES
    assert make.read == IDS
    assert all(f"{path} is damaged; the ids" in caplog.text for path in files)
    third = make()
    assert (list(third.records(IDS)), third.notes(IDS), make.read) == (RECORDS, NOTES, [])


def test_whole_files_are_not_read_again(make):
    again = make()
    assert again.fill([IDS], num_workers=0) == []
    assert (list(again.records(IDS)), again.notes(IDS), make.read) == (RECORDS, NOTES, [])


def test_a_chunk_that_cannot_be_read_again_names_the_reason(make, tmp_path, monkeypatch):
    (path,) = [path for path, chunk in make()._chunks(IDS) if "17" in chunk]
    path.write_bytes(b"")
    again = make()
    monkeypatch.setattr(again, "_read", lambda key: ({}, [f"{key} is empty"]))
    with pytest.raises(ValueError, match=r"\.chunk is damaged, and the ids 16 to 17 in .*originals .*: 16 is empty"):
        list(again.records(IDS))
