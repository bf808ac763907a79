"""A run on a user's own folder in which labels are missing: train, evaluate, predict."""

import logging
import math
import shutil

import numpy as np
import pytest

from mtl_jax import experiment
from mtl_jax.config import Config, Data, Model, Optim, Train, num_channels, validate
from mtl_jax.data import catalogue
from mtl_jax.evaluation import result_files, scoring
from mtl_jax.evaluation.edge_scores import EdgeScores
from mtl_jax.inference.model import from_run
from mtl_jax.inference.predict import predict, split_samples
from mtl_jax.inference.restored import Restored
from mtl_jax.train.checkpoint import Checkpoints
from mtl_jax.train.loop import fit
from tests import tiny
from tests.data import test_folder
from tests.train import runs

OWN = catalogue.FAMILIES["folder"]

IDS = {"train": ["a", "b", "c", "f"], "val": ["d", "e"]}


MISSING = ("semseg/a", "sal/a", "edge/a", "normals/a", "depth/b", "sal/b", "edge/d", "depth/d", "sal/d", "sal/e")


def described(tmp_path, monkeypatch, missing):
    """The configuration of a run of one epoch on a folder without some of its label files."""
    tiny.register_backbones(monkeypatch)
    root = test_folder.write(tmp_path / "raw", ids=IDS)
    for name in missing:
        (root / f"{name}.png").unlink()
    data = Data("folder", manual_dir=str(root), data_dir=str(tmp_path / "tfds"), num_workers=0)
    train = Train(batch_size=2, epochs=1, log_every=1)
    return validate(experiment.resolve(Config(data, Model("baseline", "tiny"), Optim(lr=1e-3), train)))


@pytest.fixture
def workdir(tmp_path, monkeypatch, caplog):
    """Train images a and b lack most labels, val image d lacks two, and no val image has sal."""
    config = described(tmp_path, monkeypatch, MISSING)
    with caplog.at_level(logging.INFO, "mtl_jax"):
        fit(config, tmp_path / "run")
    shutil.rmtree(config.data.manual_dir)  # built and described in the run: the folder is not needed any more
    return tmp_path / "run"


def test_a_task_without_a_training_label_is_refused(tmp_path, monkeypatch):
    config = described(tmp_path, monkeypatch, [f"depth/{key}" for key in IDS["train"]])
    with pytest.raises(
        ValueError, match=r"no training image of folder_mt/own has a label of depth; leave the task out"
    ):
        fit(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_run(workdir, tmp_path, caplog):
    said = [record.getMessage() for record in caplog.get_records("setup")]
    (start,) = (message for message in said if message.startswith("training\n"))
    assert "loss balanced_cross_entropy x 5; labels: train 2, val 0\n" in start
    assert "loss edge_cross_entropy x 50; labels: train 3, val 1\n" in start
    assert (
        "no validation image has a label of sal, which cannot be scored; checkpoints are ranked by semseg, normals, "
        "edge, depth alone"
    ) in said
    (evaluated,) = (line for line in runs.log(workdir) if line["kind"] == "eval")
    assert {name.partition("/")[0] for name in evaluated} >= {"semseg", "depth", "edge", "normals"}
    assert not any(name.startswith("sal/") or value != value for name, value in evaluated.items())
    assert Checkpoints(workdir, read_only=True).best() == 2
    config = experiment.load_config(workdir)
    assert num_channels(config, ("semseg",)) == {"semseg": 3}
    run = Restored(config, workdir, "latest")
    source = run.experiment.open_split("val", run.tasks)
    rules = run.experiment.final_metrics
    edges = EdgeScores(source, run.experiment.dataset.edge_rule("survey"), num_workers=0)
    results = scoring.final(scoring.at_size(run.predict_split(source)), source, rules, OWN, edges).results
    scoring.save_predictions(run.predict_split(source), source, OWN, tmp_path / "saved")
    assert math.isnan(results["sal"]["mIoU"])  # no image of the split has this label
    assert all(math.isfinite(results[task][name]) for task, name in (("semseg", "mIoU"), ("edge", "odsF")))
    assert all(math.isfinite(results[task][name]) for task, name in (("depth", "rmse"), ("normals", "mean")))
    for task in run.tasks:
        assert len(list((tmp_path / "saved" / task).iterdir())) == 2
    criteria = run.experiment.final_criteria
    protocol = run.experiment.protocol_description
    content = result_files.make(results, None, criteria, checkpoint="latest", step=run.step, protocol=protocol)
    assert content["protocol"]["data"] == "folder_mt/own"
    assert "sal" in result_files.readable(content)

    # The unlabelled image changes nothing: the same numbers from the labelled one alone.
    (index,) = (i for i in range(2) if source.sample(i, (), OWN)["id"] == "e")
    images = scoring.at_size((i, maps) for i, maps in run.predict_split(source) if i == index)
    edges = EdgeScores(source, run.experiment.dataset.edge_rule("survey"), num_workers=0)
    alone = scoring.final(images, source, rules, OWN, edges).results
    for task in ("edge", "depth"):
        np.testing.assert_equal(alone[task], results[task])

    model = from_run(config, workdir, "latest")
    assert predict(model, split_samples(source, OWN, run.tasks), tmp_path / "out") == 2
    assert len(list((tmp_path / "out" / "panels").iterdir())) == 2
