"""What Checkpoints makes of its files: flipped bits, older versions, lost power. The arrays belong to no model."""

import os
import random
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.train import integrity
from mtl_jax.train.checkpoint import Checkpoints, DamagedError, SaveError
from mtl_jax.train.checkpoint_parts import Evaluation

SCORES = {1: 0.9, 2: None, 3: 0.1, 4: 0.2}
NEWEST = "checkpoints/4"


def arrays(step):
    weights = np.random.default_rng(step).normal(size=(16, 8)).astype(np.float32)
    return {0: {"kernel": jnp.asarray(weights), "bias": jnp.arange(5.0)}, 1: {"count": jnp.int32(step)}}


def progress(step):
    return {"step": step, "input": {"next_index": 7 * step}, "reference": None}


def abstract(tree):
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def save(workdir, scores, keep=1):
    checkpoints = Checkpoints(workdir, keep=keep)
    for step, score in scores.items():
        checkpoints.save(step, arrays(step), progress(step))
        if score is not None:
            checkpoints.add_evaluation(step, Evaluation(score))
    checkpoints.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("written")
    save(workdir, SCORES)
    return workdir


@pytest.fixture
def copy(written, tmp_path):
    return shutil.copytree(written, tmp_path / "copy")


def same(restored, step, parts=(0, 1)):
    """Whether (arrays, progress) are those that were saved, all bits of them."""
    expected = {part: arrays(step)[part] for part in parts}
    leaves, wanted = jax.tree.leaves(restored[0]), jax.tree.leaves(expected)
    return restored[1] == progress(step) and [np.asarray(x).tobytes() for x in leaves] == [
        np.asarray(x).tobytes() for x in wanted
    ]


def continued(workdir):
    """(newest step that is whole, whether everything of it is as it was saved, best step)."""
    checkpoints = Checkpoints(workdir)
    step, *restored = checkpoints.restore_newest(abstract(arrays(0)))
    best = checkpoints.best()
    checkpoints.close()
    return step, same(restored, step), best


def evaluated(workdir, step="latest"):
    """(whether everything is as it was saved, best step)."""
    checkpoints = Checkpoints(workdir, read_only=True)
    number = checkpoints.resolve(step)
    restored = checkpoints.restore(number, abstract({0: arrays(0)[0]}))
    best = checkpoints.best()
    checkpoints.close()
    return same(restored, number, parts=(0,)), best


def flip(path, rng):
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(content))


def test_no_flipped_bit_is_silent(written, tmp_path, caplog):
    """Three bits of every file of the newest step: told of, or what is restored is what was saved."""
    files = sorted(path.relative_to(written) for path in (written / NEWEST).rglob("*") if path.is_file())
    rng, flips, told = random.Random(0), 0, set()
    for name in files * 3:
        workdir = shutil.copytree(written, tmp_path / "copy")
        flip(workdir / name, rng)
        flips += 1
        refused = ""
        try:
            assert evaluated(workdir) == (True, 1), name
        except DamagedError as error:
            refused = str(error)
            told.add(name)
        assert not refused or str(workdir / name) in refused
        caplog.clear()
        step, whole, best = continued(workdir)
        assert whole, name
        assert best == 1
        if step == 3 or (workdir / "damaged_checkpoints").exists():
            assert str(workdir / name) in caplog.text
            assert name in told
        else:
            assert step == 4
        shutil.rmtree(workdir)
    assert flips >= 50
    names = {path.relative_to(NEWEST).as_posix() for path in told}
    assert {"progress/metadata", "metrics/metrics", "state/_METADATA", "state/manifest.ocdbt"} <= names
    assert {name.as_posix() for name in files if "/d/" in name.as_posix()} <= {path.as_posix() for path in told}


def test_the_step_before_is_taken(copy, caplog):
    flip(copy / NEWEST / "progress/metadata", random.Random(0))
    assert continued(copy) == (3, True, 1)
    told = f"checkpoint 4 is damaged and passed over: {copy / NEWEST}/progress/metadata has changed"
    assert told in caplog.text
    assert (copy / "damaged_checkpoints/4").is_dir()


def test_evaluation_of_a_changed_step_is_refused(copy):
    flip(copy / NEWEST / "progress/metadata", random.Random(0))
    with pytest.raises(DamagedError, match=r"checkpoint 4 of .*4/progress/metadata has changed .* Other steps: 1, 3"):
        evaluated(copy)
    assert evaluated(copy, "3") == (True, 1)


def test_a_changed_score_ranks_nothing(copy, caplog):
    """The score is a number still, and the highest."""
    path = copy / NEWEST / "metrics/metrics"
    path.write_text(path.read_text().replace("0.2", "7.2"))
    with pytest.raises(DamagedError, match=r"4/metrics/metrics has changed .*; move .*4/metrics elsewhere"):
        Checkpoints(copy, read_only=True)
    assert continued(copy) == (4, True, 1)
    assert "the checkpoint counts as not evaluated" in caplog.text
    caplog.clear()
    assert evaluated(copy) == (True, 1)
    assert continued(copy) == (4, True, 1)
    assert "checkpoints/4 has no score, although its manifest lists one" in caplog.text


def test_steps_of_older_versions_are_read(copy, caplog):
    for manifest in copy.rglob(integrity.MANIFEST):
        manifest.unlink()
    assert evaluated(copy) == (True, 1)
    assert f"{copy / NEWEST} has no manifest.sha256" in caplog.text
    caplog.clear()
    assert continued(copy) == (4, True, 1)
    assert f"{copy / NEWEST} has no manifest.sha256" in caplog.text


def test_older_steps_that_are_cut_short_are_told_of(copy):
    for manifest in copy.rglob(integrity.MANIFEST):
        manifest.unlink()
    (copy / NEWEST / "state/_METADATA").unlink()
    with pytest.raises(DamagedError, match=r"4/state/_METADATA is missing"):
        evaluated(copy)
    assert continued(copy) == (3, True, 1)


@pytest.mark.parametrize("damaged", [lambda text: b"", lambda text: bytes(len(text)), lambda text: text[:300]])
def test_a_damaged_manifest_can_be_set_aside(copy, damaged):
    manifest = copy / NEWEST / integrity.MANIFEST
    manifest.write_bytes(damaged(manifest.read_bytes()))
    with pytest.raises(DamagedError, match=r"manifest.sha256 is damaged; delete it to take the files"):
        evaluated(copy)
    manifest.unlink()
    assert evaluated(copy) == (True, 1)


def test_metadata_that_orbax_cannot_read_are_told_of(copy):
    path = copy / NEWEST / "_CHECKPOINT_METADATA"
    path.write_text("[]")
    with pytest.raises(DamagedError, match=r"4/_CHECKPOINT_METADATA holds no JSON object; delete it"):
        evaluated(copy)
    assert continued(copy) == (4, True, 1)
    assert not path.exists()
    assert evaluated(copy) == (True, 1)


def test_the_manifest_goes_with_its_step(copy):
    folders = {int(path.parent.name) for path in copy.rglob(integrity.MANIFEST)}
    checkpoints = Checkpoints(copy)
    assert folders == set(checkpoints.steps()) == {1, 3, 4}  # the best one and the two newest
    checkpoints.save(5, arrays(5), progress(5))
    checkpoints.add_evaluation(5, Evaluation(0.95))
    assert checkpoints.steps() == [4, 5]
    checkpoints.save(6, arrays(6), progress(6))
    checkpoints.close()
    assert continued(copy) == (6, True, 5)
    assert {path.name for path in (copy / "checkpoints").iterdir() if path.name != "metadata"} == {"5", "6"}


def test_a_step_without_its_manifest_is_never_finished(copy, monkeypatch):
    """As after a kill while the manifest is written."""

    def fails(directory):
        raise OSError(5, "Input/output error", str(directory))

    with monkeypatch.context() as patch:
        patch.setattr(integrity, "seal", fails)
        checkpoints = Checkpoints(copy)
        checkpoints.save(5, arrays(5), progress(5))
        with pytest.raises(SaveError, match=r"could not be written to .*Input/output error"):
            checkpoints.close()
    assert continued(copy) == (4, True, 1)
    assert Checkpoints(copy, read_only=True).steps() == [1, 3, 4]


def test_a_score_is_listed_in_the_manifest_and_where_it_is_undefined_ranks_nothing(copy):
    checkpoints = Checkpoints(copy)
    checkpoints.save(5, arrays(5), progress(5))
    assert checkpoints.evaluation(5) is None
    undefined = Evaluation(None, {"depth": {"rmse": 0.5}})
    checkpoints.add_evaluation(5, undefined)
    assert checkpoints.evaluation(5) == undefined
    assert checkpoints.best() == 1
    checkpoints.close()
    assert "metrics/metrics" in (copy / "checkpoints/5" / integrity.MANIFEST).read_text()
    assert continued(copy) == (5, True, 1)


@pytest.mark.parametrize("name", [integrity.MANIFEST, "metrics"])
def test_a_crash_while_the_score_is_added_loses_no_step(tmp_path, monkeypatch, name):
    """The manifest and then the score are written; the crash comes before one of them."""
    save(tmp_path, {1: 0.1, 2: None})
    checkpoints = Checkpoints(tmp_path)
    write = integrity.atomic_files.write

    def crash(path, content):
        if path.name == name:
            raise OSError(5, "Input/output error")
        return write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(integrity.atomic_files, "write", crash)
        with pytest.raises(SaveError, match="Input/output error"):
            checkpoints.add_evaluation(2, Evaluation(0.9))
    checkpoints.close()
    assert continued(tmp_path) == (2, True, 1)
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.evaluation(2) is None
    checkpoints.add_evaluation(2, Evaluation(0.9))
    checkpoints.close()
    assert continued(tmp_path) == (2, True, 2)


def test_a_run_that_continues_deletes_what_a_kill_left(copy):
    """The kill came after the score of a new best step was added, and before the old best step was deleted."""
    checkpoints = Checkpoints(copy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "_delete_superseded", lambda self: None)
        checkpoints.add_evaluation(4, Evaluation(0.95))
    assert checkpoints.steps() == [1, 3, 4]
    checkpoints.close()
    assert continued(copy) == (4, True, 4)
    assert Checkpoints(copy, read_only=True).steps() == [3, 4]


def test_one_process_decides_for_all(copy, monkeypatch):
    monkeypatch.setattr("mtl_jax.runtime.processes.first_says", lambda ask: "a file that process 0 sees has changed")
    with pytest.raises(DamagedError, match=r"checkpoint 4 of .* is damaged: a file that process 0 sees has changed"):
        evaluated(copy)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs the names of open files")
def test_a_step_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync

    def record(descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append((path, (tmp_path / "checkpoints/1").exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    save(tmp_path, {1: None})
    unfinished = tmp_path / "checkpoints/1.orbax-checkpoint-tmp"
    before = {path for path, named in synced if not named}
    listed = [line.split()[1] for line in (tmp_path / "checkpoints/1" / integrity.MANIFEST).read_text().splitlines()]
    expected = [*listed[:-1], ".", "state", "state/d", "progress"]
    assert len(expected) > 12
    assert before >= {unfinished / name for name in expected}
    assert any(path.name.startswith(f".{integrity.MANIFEST}.") for path in before)
    after = [path for path, named in synced if named]
    assert after == [tmp_path / "checkpoints/1", tmp_path / "checkpoints", tmp_path]


def test_the_best_ones_and_the_newest_stay(tmp_path):
    scores = {1: 0.5, 2: 0.9, 3: None, 4: 0.7, 5: 0.8, 6: 0.1, 7: None, 8: 0.2}
    for keep, expected in ((1, [2, 7, 8]), (2, [2, 5, 7, 8]), (3, [2, 4, 5, 7, 8])):
        workdir = tmp_path / str(keep)
        save(workdir, scores, keep)
        checkpoints = Checkpoints(workdir, read_only=True)
        assert checkpoints.steps() == expected
        assert checkpoints.ranking() == sorted(set(expected) & {2, 4, 5, 8}, key=lambda step: -scores[step])
        assert checkpoints.best() == 2
        checkpoints.close()
    checkpoints = Checkpoints(tmp_path / "3", keep=1)  # fewer from now on
    checkpoints.restore_newest(abstract(arrays(0)))
    assert checkpoints.steps() == [2, 7, 8]
    checkpoints.close()
