import itertools
import logging
import time

import jax
import numpy as np
import pytest

from mtl_jax import backbones, experiment
from mtl_jax.data import catalogue, loader
from mtl_jax.evaluation import scoring
from mtl_jax.inference.restored import Restored
from mtl_jax.metrics import Accumulator
from mtl_jax.runtime.published_files import Address
from mtl_jax.train import configured_step, loop
from mtl_jax.train.cadence import Cadence
from mtl_jax.train.checkpoint import Checkpoints
from mtl_jax.train.loop import fit
from tests import tiny
from tests.marks import slow
from tests.train import runs

RENDERED = catalogue.FAMILIES["rendered_scenes"]

# 12 training images in batches of 4: three steps an epoch.


@pytest.mark.parametrize(("num_workers", "killed_at", "accumulate"), [slow(0, 5, 1), (1, 3, 2)])
def test_an_interrupted_run_ends_bit_identical(tmp_path, data_dir, caplog, num_workers, killed_at, accumulate):
    config = tiny.config(data_dir, checkpoint_every=2, eval_final_epochs=1, accumulate=accumulate)
    with caplog.at_level(logging.INFO):
        fit(config, tmp_path / "straight")
    assert ("batch norm takes each micro-batch of 2 images for a batch" in caplog.text) == (accumulate == 2)
    runs.fit_and_kill(config, tmp_path / "killed", killed_at)  # within an epoch, at least a step after the last save
    config.data.num_workers = num_workers  # worker processes change nothing
    fit(config, tmp_path / "killed")

    (step, straight, _), (other, resumed, progress) = (runs.arrays(tmp_path / n) for n in ("straight", "killed"))
    assert step == other == 6
    assert progress["input"]["position"] == 6
    jax.tree.map(np.testing.assert_array_equal, straight, resumed)
    # Every step once, with the same numbers.
    assert runs.log(tmp_path / "straight") == runs.log(tmp_path / "killed")


def test_log_names_every_loss_and_results_can_be_evaluated(tmp_path, data_dir, caplog):
    config = tiny.config(data_dir, eval_final_epochs=0)
    results = fit(config, tmp_path / "run")
    lines = runs.lines(tmp_path / "run")
    train = [line for line in lines if line["kind"] == "train"]
    assert [line["step"] for line in train] == [1, 2, 3, 4, 5, 6]
    assert {"loss/depth", "loss/total", "learning_rate", "epoch", "images_per_second"} <= set(train[0])
    assert [line["step"] for line in lines if line["kind"] == "eval"] == [3, 6]
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))

    # A finished run trains no further, and its checkpoint gives the scores of training's own evaluation.
    assert fit(config, tmp_path / "run") == {}
    run = Restored(experiment.load_config(tmp_path / "run"), tmp_path / "run", "latest")
    source = run.experiment.open_split("val", run.tasks)
    maps = {index: prediction["depth"] for index, prediction in run.predict_split(source)}
    assert sorted(maps) == list(range(len(source)))
    accumulator = Accumulator(run.experiment.streaming_metrics["depth"])
    for batch in loader.val_batches(
        source,
        conventions=RENDERED,
        tasks=("depth",),
        recipe="astmt",
        size=(64, 64),
        batch_size=4,
        num_workers=0,
    ):
        for row in np.flatnonzero(batch["valid"]):
            prediction = maps[int(batch["index"][row])][None]
            accumulator.update(accumulator.metric.update(prediction, batch["depth"][row : row + 1]))
    assert accumulator.compute()["rmse"] == pytest.approx(results["depth"]["rmse"], rel=1e-5)


class Late:
    """A scalar that is still being computed."""

    def __init__(self, value):
        self.value = value

    def __array__(self, dtype=None, copy=None):
        time.sleep(0.25)
        return np.asarray(self.value, dtype)


def test_images_per_second_are_of_finished_steps(tmp_path, data_dir, monkeypatch):
    """Steps are handed to the device and return before they are done."""
    make = configured_step.make_train_step

    def late(*args, **options):
        step = make(*args, **options)

        def train_step(*args):
            arrays, scalars = step(*args)
            return arrays, scalars | {"loss/total": Late(scalars["loss/total"])}

        return train_step

    monkeypatch.setattr(configured_step, "make_train_step", late)
    fit(tiny.config(data_dir, log_every=3, eval_final_epochs=1), tmp_path)
    _, compiled = (line for line in runs.lines(tmp_path) if line["kind"] == "train")
    assert compiled["images_per_second"] <= 12 / (3 * 0.25)


def test_a_failure_of_the_input_loses_no_step(tmp_path, data_dir, monkeypatch, caplog):
    config = tiny.config(data_dir, log_every=2, eval_final_epochs=1)
    with monkeypatch.context() as patch:
        place, calls = loop._Run._place_batch, itertools.count(1)

        def fail_at_the_third(self):
            if next(calls) == 3:
                raise RuntimeError("a worker process was killed")
            return place(self)

        patch.setattr(loop._Run, "_place_batch", fail_at_the_third)
        with pytest.raises(RuntimeError, match="a worker process was killed"):
            fit(config, tmp_path / "failed")
    assert "step 2 was saved before the error; the same command continues from it" in caplog.text
    fit(config, tmp_path / "failed")
    fit(config, tmp_path / "straight")
    failed, straight = (runs.arrays(tmp_path / name) for name in ("failed", "straight"))
    jax.tree.map(np.testing.assert_array_equal, failed[1], straight[1])


@pytest.mark.parametrize("moment", ["streaming", "score"])
def test_an_evaluation_that_fails_loses_nothing(tmp_path, data_dir, monkeypatch, caplog, moment):
    """As after a kill in the middle of an evaluation, or after its line of the log."""
    config = tiny.config(data_dir, log_every=2, eval_final_epochs=0)
    with monkeypatch.context() as patch:

        def fail(*arguments):
            raise RuntimeError("killed")

        patch.setattr(loop.scoring, moment, fail)
        with pytest.raises(RuntimeError, match="killed"):
            fit(config, tmp_path / "failed")
    failed = Checkpoints(tmp_path / "failed", read_only=True)
    assert failed.resolve("latest") == 3
    assert failed.evaluation(3) is None
    with caplog.at_level(logging.INFO):
        fit(config, tmp_path / "failed")
    assert "step 3 has no score and is evaluated first" in caplog.text
    fit(config, tmp_path / "straight")
    failed, straight = (tmp_path / name for name in ("failed", "straight"))
    jax.tree.map(np.testing.assert_array_equal, runs.arrays(failed)[1], runs.arrays(straight)[1])
    evaluations = [[line for line in runs.lines(run) if line["kind"] == "eval"] for run in (failed, straight)]
    assert evaluations[0] == evaluations[1]
    assert len(evaluations[0]) > 1
    assert Checkpoints(failed, read_only=True).best() == Checkpoints(straight, read_only=True).best()


def test_the_device_lags_behind_by_two_steps_at_most(tmp_path, data_dir, monkeypatch):
    """The bar, signals and memory depend on it."""
    make, given, ended = configured_step.make_train_step, [], []

    class Pending(float):
        def block_until_ready(self):
            ended.append(len(given))

    def late(*args, **options):
        step = make(*args, **options)

        def train_step(*args):
            arrays, scalars = step(*args)
            given.append(None)
            return arrays, {name: Pending(value) for name, value in scalars.items()}

        return train_step

    monkeypatch.setattr(configured_step, "make_train_step", late)
    fit(tiny.config(data_dir, log_every=6, eval_final_epochs=1, epochs=3), tmp_path)
    assert sorted(set(ended)) == [3, 6, 9]  # the third step of each epoch waits for the first one


def test_best_and_latest_are_kept(tmp_path, data_dir, monkeypatch):
    config = tiny.config(data_dir, epochs=4, eval_final_epochs=0, checkpoint_every=2)
    scores = iter([0.1, 0.9, 0.3, 0.2])
    monkeypatch.setattr(scoring, "score", lambda *args: next(scores))
    fit(config, tmp_path)
    checkpoints = Checkpoints(tmp_path, read_only=True)
    assert checkpoints.steps() == [6, 10, 12]
    assert (checkpoints.resolve("best"), checkpoints.resolve("latest"), checkpoints.resolve("6")) == (6, 12, 6)
    with pytest.raises(FileNotFoundError, match="has no step 7; it has 6, 10, 12"):
        checkpoints.resolve("7")
    with pytest.raises(ValueError, match="may be best, latest or a number"):
        checkpoints.resolve("last")


def test_without_evaluation_the_latest_stands_in_for_the_best(tmp_path, data_dir, caplog):
    config = tiny.config(data_dir, epochs=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cadence, "evaluates", lambda self, step: False)
        fit(config, tmp_path)
    with caplog.at_level(logging.WARNING):
        assert Checkpoints(tmp_path, read_only=True).resolve("best") == 3
    assert "the latest stands in for the best" in caplog.text


def test_a_workdir_belongs_to_one_configuration(tmp_path, data_dir):
    config = tiny.config(data_dir, epochs=1)
    fit(config, tmp_path)
    config.optim.lr = 0.5
    config.train.log_every = 7  # free to change
    config.model.remat = ("heads",)  # alike
    config.train.accumulate = 2
    changed = r"optim.lr: 0.001 there, 0.5 now; train.accumulate: 1 there, 2 now"
    with pytest.raises(ValueError, match=rf"another configuration \({changed}\)"):
        fit(config, tmp_path)


def test_a_failed_start_does_not_claim_the_workdir(tmp_path, data_dir):
    config = tiny.config(data_dir, epochs=1)
    config.model.name = "singletask"
    with pytest.raises(ValueError, match="unknown model 'singletask'"):
        fit(config, tmp_path)
    (tmp_path / experiment.CONFIG).write_text("")  # as a crash of an older version may have left it
    config.model.name = "single_task"
    fit(config, tmp_path)
    assert experiment.load_config(tmp_path).model.name == "single_task"


def test_a_run_keeps_one_reference(tmp_path, data_dir):
    config = tiny.config(data_dir, epochs=2, eval_final_epochs=0, checkpoint_every=2)
    config.data.tasks, config.model.name = ("normals", "depth"), "baseline"
    singles = {"normals": {"mean": 20.0}, "depth": {"rmse": 0.5}}
    fit(config, tmp_path, singles)
    assert runs.arrays(tmp_path)[2]["reference"] == singles
    with pytest.raises(ValueError, match="ranked its checkpoints by other results"):
        fit(config, tmp_path, singles | {"depth": {"rmse": 0.6}})
    assert fit(config, tmp_path) == {}  # the stored ones serve on


def test_the_first_evaluation_stays_the_reference_after_a_kill(tmp_path, data_dir):
    """The step that it evaluates was saved before there was a reference."""
    config = tiny.config(data_dir, epochs=2, eval_final_epochs=0)
    config.data.tasks, config.model.name = ("normals", "depth"), "baseline"
    fit(config, tmp_path / "straight")
    runs.fit_and_kill(config, tmp_path / "killed", 4)
    fit(config, tmp_path / "killed")
    (*_, straight), (*_, killed) = (runs.arrays(tmp_path / name) for name in ("straight", "killed"))
    assert straight["reference"] == killed["reference"]
    assert straight["reference"]["depth"]["rmse"] > 0
    evaluations = [Checkpoints(tmp_path / name, read_only=True).evaluation(6) for name in ("straight", "killed")]
    assert evaluations[0] == evaluations[1]


def test_a_checkpoint_of_another_model_is_refused(tmp_path, data_dir):
    config = tiny.config(data_dir, epochs=1)
    fit(config, tmp_path)
    config.data.tasks, config.model.name = ("semseg",), "baseline"
    with pytest.raises(
        ValueError, match=r"belongs to another model or optimiser: .*decoder.* is only in the checkpoint"
    ):
        Restored(config, tmp_path, "latest")


def test_prediction_leaves_the_optimiser_on_the_disk(tmp_path, data_dir):
    config = tiny.config(data_dir, epochs=1)
    fit(config, tmp_path)
    run = Restored(experiment.load_config(tmp_path), tmp_path, "latest")
    whole = runs.arrays(tmp_path)[1]
    assert list(run.state.arrays) == [0] < list(whole)
    jax.tree.map(np.testing.assert_array_equal, run.state.arrays[0], whole[0])
    other = tiny.config(data_dir, epochs=1)
    other.optim.name = "sgd"  # another optimiser state, the same model
    assert Restored(other, tmp_path, "latest").fingerprint == run.fingerprint


def test_the_batch_must_suit_the_data(tmp_path, data_dir):
    with pytest.raises(ValueError, match="batch_size is 16, but the training split has 12 images"):
        fit(tiny.config(data_dir, batch_size=16), tmp_path)
    assert not (tmp_path / "config.json").exists()  # nothing was begun


def test_pretrained_weights_must_be_there_before_anything_starts(tmp_path, data_dir, monkeypatch):
    monkeypatch.setenv("MTL_JAX_CACHE", str(tmp_path))
    url = (tmp_path / "absent-00000000.pth").as_uri()
    rows = {"imagenet": backbones.Weights(Address(url), "MIT")}
    monkeypatch.setitem(backbones.WEIGHTS, "hrnet_w18", rows)
    monkeypatch.setattr(experiment.Experiment, "open_split", lambda *args: pytest.fail("data was opened first"))
    config = tiny.config(data_dir)
    config.model.backbone, config.model.pretrained = "hrnet_w18", "imagenet"
    with pytest.raises(OSError, match=f"Fetch {url} by other means"):
        fit(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
