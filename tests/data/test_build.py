"""Building a data set in processes: that die, work side by side, or both build it."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from mtl_jax.data import catalogue, datasets, nyud
from mtl_jax.runtime.messages import WriteError
from tests.nyud_release import H, W, build, write

NYUD = catalogue.FAMILIES["nyud"]


def test_no_tensorflow(tmp_path):
    write(tmp_path / "raw", "survey")
    code = (
        "import sys; from mtl_jax.data import datasets\n"
        f"b = datasets.prepare('nyud_mt/survey_subset', {str(tmp_path / 'tfds')!r}, {str(tmp_path / 'raw')!r})\n"
        "datasets.open_split(b, 'val')[0]\n"
        "assert 'tensorflow' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2], capture_output=True)


def run_dying(tmp_path, module, function, at):
    """Builds in a process that dies when it calls a function for the `at`-th time."""
    code = (
        f"import os; from mtl_jax.data import datasets, nyud, {module} as module\n"
        f"original, seen = module.{function}, []\n"
        "def dying(*args):\n"
        "    seen.append(args)\n"
        f"    if len(seen) == {at}: os._exit(9)\n"
        "    return original(*args)\n"
        f"module.{function} = dying\n"
        f"datasets.prepare('nyud_mt/survey_subset', {str(tmp_path / 'tfds')!r}, {str(tmp_path / 'raw')!r}, 0)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True)
    assert result.returncode == 9, result.stderr.decode()
    assert not tfds.builder("nyud_mt/survey_subset", data_dir=tmp_path / "tfds").is_prepared()


def test_killed_build_is_not_complete(tmp_path):
    """A process that dies while writing leaves nothing that is read as the data set, and the next build works."""
    write(tmp_path / "raw", "survey")
    run_dying(tmp_path, "staging", "pickle.loads", 2)  # the second split is being written
    folder = tmp_path / "tfds" / "nyud_mt" / "survey_subset"
    assert any("incomplete" in name for name in os.listdir(folder))
    builder = build("survey", tmp_path / "tfds", tmp_path / "raw")
    assert len(datasets.open_split(builder, "train")) == 3
    assert os.listdir(folder) == ["1.1.0"]
    assert list((tmp_path / "tfds" / "staging").iterdir()) == []


def test_killed_build_is_continued(tmp_path, monkeypatch):
    """What was read before is not read again, unless its files have changed."""
    ids = {"train": [f"{i:04}" for i in range(40)], "val": ["0100"]}
    folder = write(tmp_path / "raw", "survey", ids)
    run_dying(tmp_path, "nyud", "_read_record", 36)  # in the third chunk of 16
    np.save(folder / "depth" / "0003.npy", np.ones((H, W), np.float32))
    read, original = [], nyud._read_record
    monkeypatch.setattr(nyud, "_read_record", lambda root, config, key: read.append(key) or original(root, config, key))
    builder = datasets.prepare("nyud_mt/survey_subset", tmp_path / "tfds", tmp_path / "raw", num_workers=0)
    assert read == ids["train"][:16] + ids["train"][32:] + ids["val"]
    source = datasets.open_split(builder, "train", ("depth",))
    assert [source.sample(i, (), NYUD)["id"] for i in range(40)] == ids["train"]
    assert np.all(source[3]["depth"] == 1)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("write() failed: No space left on device; writing /x.array_record; at byte 4096"),  # ArrayRecord's
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    ],
)
def test_a_full_disk_is_told_with_a_remedy(tmp_path, monkeypatch, error):
    write(tmp_path / "raw", "survey")

    def fail(path, iterator):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(tfds.core.file_adapters.ArrayRecordFileAdapter, "write_examples", fail)
        with pytest.raises(WriteError) as caught:
            build("survey", tmp_path / "tfds", tmp_path / "raw")
    assert str(caught.value).startswith(
        f"cannot write the data set nyud_mt/survey_subset, {tmp_path / 'tfds'}: No space left on device; free space"
    )
    builder = build("survey", tmp_path / "tfds", tmp_path / "raw")
    assert len(datasets.open_split(builder, "train")) == 3


def test_worker_processes_change_nothing(tmp_path):
    write(tmp_path / "raw", "survey", {"train": [f"{i:04}" for i in range(20)], "val": ["0100"]})
    sources = [
        datasets.open_split(
            datasets.prepare("nyud_mt/survey_subset", tmp_path / f"tfds{n}", tmp_path / "raw", num_workers=n), "train"
        )
        for n in (0, 2)
    ]
    for i in range(20):
        one, other = (source[i] for source in sources)
        assert {key: np.array_equal(one[key], other[key]) for key in one} == dict.fromkeys(one, True)


def test_two_processes_build_at_once(tmp_path):
    """The second waits for the first, and then finds the data set built."""
    write(tmp_path / "raw", "survey", {"train": [f"{i:04}" for i in range(40)], "val": ["0100"]})
    code = (
        "from mtl_jax.data import datasets\n"
        "if __name__ == '__main__':\n"
        f"    b = datasets.prepare('nyud_mt/survey_subset', {str(tmp_path / 'tfds')!r}, {str(tmp_path / 'raw')!r}, 0)\n"
        "    assert len(datasets.open_split(b, 'train')) == 40\n"
    )
    command = [sys.executable, "-c", code]
    running = [subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE) for _ in range(2)]
    for process in running:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()
