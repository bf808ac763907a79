"""What a run survives: signals, kills, damaged checkpoints, a full disk, losses that are not finite."""

import json
import logging
import os
import re
import shutil
import signal
import time
from dataclasses import replace

import jax
import numpy as np
import pytest
from filelock import FileLock

from mtl_jax import backbones, experiment, folders
from mtl_jax.data import catalogue, loader
from mtl_jax.inference.restored import Restored
from mtl_jax.train import configured_step, integrity
from mtl_jax.train.checkpoint import Checkpoints, DamagedError
from mtl_jax.train.lock import LOCK
from mtl_jax.train.loop import NonFiniteLossError, fit
from mtl_jax.train.stop import EXIT_STATUS
from tests import tiny
from tests.marks import slow
from tests.train import runs

NYUD = catalogue.FAMILIES["nyud"]


@pytest.fixture(scope="module")
def run(data_dir, tmp_path_factory):
    return runs.Run(data_dir, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def finished(data_dir, tmp_path_factory):
    """The work directory of a run that nothing happened to; its checkpoints are of steps 3 and 6."""
    workdir = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbones.BACKBONES, "tiny", tiny.build_backbone)
        fit(tiny.config(data_dir, eval_final_epochs=1), workdir)
    return workdir


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy")


@pytest.mark.parametrize(
    ("reached", "eval_final_epochs"),
    [(2, 1), slow(3, 0)],
    ids=["training", "evaluation"],
)
def test_a_signal_saves_the_step(run, finished, tmp_path, reached, eval_final_epochs):
    """SIGTERM reaches the whole process group, as under SLURM, and twice: also the processes that read images."""
    options = ("--config.data.num_workers=1", "--config.train.epochs=400")
    evaluation = f"--config.train.eval_final_epochs={eval_final_epochs}"
    process = run.start(tmp_path, *options, evaluation, start_new_session=True)
    runs.wait_for(lambda: runs.logged_steps(tmp_path) >= reached, f"step {reached}")
    for _ in range(2):
        os.killpg(process.pid, signal.SIGTERM)
        time.sleep(0.3)
    ((status, errors),) = run.finish(process)
    assert status == EXIT_STATUS, errors
    step = Checkpoints(tmp_path, read_only=True).resolve("latest")
    assert f"stopped at step {step} of 1200, which was saved" in errors
    assert runs.logged_steps(tmp_path) == step


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_in_another_process(run, finished, tmp_path):
    run(tmp_path)
    assert runs.log(tmp_path) == runs.log(finished)
    jax.tree.map(np.testing.assert_array_equal, runs.arrays(finished)[1], runs.arrays(tmp_path)[1])


def test_damage_is_seen(copy, finished):
    """Every file of a checkpoint in turn, missing or cut short: what counts as whole is restored bit for bit."""
    expected = runs.arrays(finished)[1]
    newest = copy / "checkpoints/6"
    seen = {}
    for path in sorted(path for path in newest.rglob("*") if path.is_file()):
        content = path.read_bytes()
        for damaged in (None, content[: len(content) // 2]):
            path.unlink()
            if damaged is not None:
                path.write_bytes(damaged)
            if not (found := integrity.damaged_score(newest) or integrity.damage(newest)):
                jax.tree.map(np.testing.assert_array_equal, expected, runs.arrays(copy, "6")[1])
            seen[str(path.relative_to(newest)), damaged is None] = bool(found)
            path.write_bytes(content)
    assert integrity.damage(newest) == ""
    kinds = {part for (name, _), found in seen.items() if found for part in name.split("/")}
    assert kinds >= {"metadata", "_METADATA", "manifest.ocdbt", "ocdbt.process_0", "d", integrity.MANIFEST}
    told = ("progress/metadata", "state/d/")
    assert all(found for (name, _), found in seen.items() if name.startswith(told))
    assert seen["metrics/metrics", False]


def test_a_damaged_score_is_computed_again(copy, finished, data_dir, caplog):
    (copy / "checkpoints/6/metrics/metrics").write_text('{"score"')
    with pytest.raises(DamagedError, match=r"6/metrics/metrics is no whole JSON: .*; move .*6/metrics elsewhere"):
        Checkpoints(copy, read_only=True)
    fit(tiny.config(data_dir, eval_final_epochs=1), copy)
    assert "the checkpoint counts as not evaluated" in caplog.text
    assert (copy / "damaged_checkpoints/6_metrics/metrics").exists()
    assert Checkpoints(copy, read_only=True).best() == 6  # it was evaluated again
    jax.tree.map(np.testing.assert_array_equal, runs.arrays(finished)[1], runs.arrays(copy)[1])


def test_a_damaged_checkpoint_leads_to_the_one_before(copy, finished, data_dir, caplog):
    largest = max((copy / "checkpoints/6").rglob("*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:1000])
    with caplog.at_level(logging.WARNING):
        fit(tiny.config(data_dir, eval_final_epochs=1), copy)
    assert f"checkpoint 6 is damaged and passed over: {largest} has changed since it was written" in caplog.text
    assert (copy / "damaged_checkpoints/6").is_dir()
    assert runs.log(copy) == runs.log(finished)
    jax.tree.map(np.testing.assert_array_equal, runs.arrays(finished)[1], runs.arrays(copy)[1])


def test_without_a_whole_checkpoint_nothing_is_begun(copy, data_dir):
    before = runs.log(copy)
    for step in ("3", "6"):
        (copy / "checkpoints" / step / "state/_METADATA").unlink()
    with pytest.raises(
        DamagedError, match=r"all checkpoints .* are damaged; (.|\n)*step 6: .*_METADATA is missing(.|\n)*step 3"
    ):
        fit(tiny.config(data_dir, eval_final_epochs=1), copy)
    with pytest.raises(DamagedError, match=r"checkpoint 6 of .* is damaged: .* Other steps: 3"):
        Restored(experiment.load_config(copy), copy, "latest")
    assert runs.log(copy) == before
    assert Checkpoints(copy, read_only=True).steps() == [3, 6]


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_checkpoint(run, copy, finished):
    """No file may grow beyond what a checkpoint's arrays need."""
    options = ("--config.train.epochs=4", "--allow_config_change")
    limit = ("bash", "-c", 'ulimit -f 10 && exec "$@"', "bash")  # KiB
    errors = run(copy, *options, status=1, prefix=limit)
    assert "train.epochs: 2 there, 4 now" in errors
    # A thread of Orbax may write about its own end after it.
    assert re.search("error: a checkpoint could not be written to .*File too large", errors)
    assert "[wait_until_finished]" not in errors  # Orbax's own account of the same error
    assert Checkpoints(copy, read_only=True).steps() == [3, 6]
    jax.tree.map(np.testing.assert_array_equal, runs.arrays(finished)[1], runs.arrays(copy)[1])
    run(copy, "--config.train.epochs=4")
    assert [line["step"] for line in runs.log(copy) if line["kind"] == "train"] == list(range(1, 13))


TWO = ("normals", "depth")


def test_a_diverged_step_is_not_saved(tmp_path, data_dir):
    """With this learning rate the values of the first update are finite, and no later loss is."""
    config = tiny.config(data_dir, checkpoint_every=1)
    config.optim.lr = 1e30
    with pytest.raises(NonFiniteLossError, match=r"step 1: parameter_norm is inf"):
        fit(config, tmp_path)
    assert not folders.holds_checkpoint(tmp_path)


def test_the_way_back_from_a_step_that_diverged(tmp_path, data_dir, monkeypatch):
    config = tiny.config(data_dir, checkpoint_every=1, epochs=1)
    fit(config, tmp_path)
    config.train.epochs = 2
    steps = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    monkeypatch.setattr(configured_step, "make_train_step", lambda *args, **options: not_finite)
    with pytest.raises(NonFiniteLossError) as raised:
        fit(config, tmp_path, allow_config_change=True)
    place = tmp_path / "checkpoints" / "3"
    assert f"continued from step 3, which may have diverged already: move {place} to another place" in str(raised.value)
    assert f"the same command continues from step {steps[-2]}" in str(raised.value)


def not_finite(arrays, batch, seed):
    return arrays, {"loss/total": np.float32("nan")}


def test_a_loss_that_is_not_finite_is_written_down(tmp_path, data_dir):
    config = tiny.config(data_dir)
    config.optim.lr = 1e15  # finite parameters, whose products overflow
    with pytest.raises(NonFiniteLossError, match=r"step \d: .*(loss/depth|gradient_norm) is (nan|inf)") as raised:
        fit(config, tmp_path)
    (path,) = tmp_path.glob("not_finite_*.json")
    assert str(path) in str(raised.value)
    content = json.loads(path.read_text())
    step = content["step"]
    assert {"loss/depth", "loss/total", "gradient_norm"} <= set(content["values"])
    assert {"nan", "inf"} & set(content["values"].values())
    source = experiment.make(config).open_split("train", ("depth",))
    batches = loader.train_batches(
        source,
        conventions=NYUD,
        tasks=("depth",),
        recipe="astmt",
        size=(64, 64),
        batch_size=4,
        seed=0,
        start=step - 1,
    )
    indices = sorted(next(batches)["index"])
    assert sorted(record["index"] for record in content["records"]) == indices
    assert {record["id"] for record in content["records"]} == {source.ids()[index] for index in indices}


def test_two_runs_cannot_share_a_work_directory(finished, copy, data_dir):
    lock = FileLock(copy / LOCK)
    lock.acquire()
    with pytest.raises(ValueError, match=r"another process is training in .*copy .*lock"):
        fit(tiny.config(data_dir, eval_final_epochs=1), copy)
    lock.release()
    assert fit(tiny.config(data_dir, eval_final_epochs=1), copy) == {}


def test_another_configuration_is_taken_when_told_so(copy, data_dir, caplog):
    config = tiny.config(data_dir, eval_final_epochs=1, epochs=3)
    with pytest.raises(ValueError, match=r"train.epochs: 2 there, 3 now.*--allow_config_change"):
        fit(config, copy)
    with caplog.at_level(logging.WARNING):
        fit(config, copy, allow_config_change=True)
    assert "goes on with another configuration: train.epochs: 2 there, 3 now" in caplog.text
    assert experiment.load_config(copy).train.epochs == 3
    assert Checkpoints(copy, read_only=True).resolve("latest") == 9


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"train": {"batch_size": 2}}, "has batch_size 4, this run 2"),
        ({"model": {"name": "baseline"}, "data": {"tasks": TWO}}, "belongs to another model"),
    ],
)
def test_a_refused_change_changes_nothing(copy, data_dir, changes, reason):
    """The original command continues the run afterwards."""
    config = tiny.config(data_dir, eval_final_epochs=1)
    before = (copy / "config.json").read_bytes()
    changed = replace(
        config, **{section: replace(getattr(config, section), **fields) for section, fields in changes.items()}
    )
    with pytest.raises(ValueError, match=reason):
        fit(changed, copy, allow_config_change=True)
    assert (copy / "config.json").read_bytes() == before
    assert Checkpoints(copy, read_only=True).steps() == [3, 6]
    assert fit(config, copy) == {}
