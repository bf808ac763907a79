"""A run on a user's own folder in which labels are missing: train, evaluate, predict."""

import math
import shutil

import numpy as np
import pytest

from mtl_jax import experiment
from mtl_jax.config import Config, Data, Model, Optim, Train, num_channels, validate
from mtl_jax.evaluation import result_files, scoring
from mtl_jax.evaluation.edge_scores import EdgeScores
from mtl_jax.inference.predict import predict, split_samples
from mtl_jax.inference.restored import Restored
from mtl_jax.train.loop import fit
from tests import tiny
from tests.data import test_folder

IDS = {"train": ["a", "b", "c", "f"], "val": ["d", "e"]}


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """Of a run of one epoch; train images a and b lack most labels, val image d lacks two, and no val image has sal."""
    tiny.register_backbones(monkeypatch)
    root = test_folder.write(tmp_path / "raw", ids=IDS)
    for name in ("semseg/a", "sal/a", "edge/a", "normals/a", "depth/b", "sal/b", "edge/d", "depth/d", "sal/d", "sal/e"):
        (root / f"{name}.png").unlink()
    data = Data("folder", manual_dir=str(root), data_dir=str(tmp_path / "tfds"), num_workers=0)
    train = Train(batch_size=2, epochs=1, log_every=1)
    config = validate(experiment.resolve(Config(data, Model("baseline", "tiny"), Optim(lr=1e-3), train)))
    fit(config, tmp_path / "run")
    shutil.rmtree(root)  # built and described in the run: the folder is not needed any more
    return tmp_path / "run"


def test_run(workdir, tmp_path):
    config = experiment.load_config(workdir)
    assert num_channels(config, ("semseg",)) == {"semseg": 3}
    run = Restored(config, workdir, "latest")
    source = run.experiment.open_split("val", run.tasks)
    rules = run.experiment.final_metrics
    edges = EdgeScores(source, run.experiment.dataset.edge_rule("survey"), num_workers=0)
    results = scoring.final(scoring.at_size(run.predict_split(source)), source, rules, "folder", edges).results
    scoring.save_predictions(run.predict_split(source), source, "folder", tmp_path / "saved")
    assert math.isnan(results["sal"]["mIoU"])  # no image of the split has this label
    assert all(math.isfinite(results[task][name]) for task, name in (("semseg", "mIoU"), ("edge", "odsF")))
    assert all(math.isfinite(results[task][name]) for task, name in (("depth", "rmse"), ("normals", "mean")))
    for task in run.tasks:
        assert len(list((tmp_path / "saved" / task).iterdir())) == 2
    criteria = run.experiment.final_criteria
    described = run.experiment.protocol_description
    content = result_files.make(results, None, criteria, checkpoint="latest", step=run.step, protocol=described)
    assert content["protocol"]["data"] == "folder_mt/own"
    assert "sal" in result_files.readable(content)

    # The unlabelled image changes nothing: the same numbers from the labelled one alone.
    (index,) = (i for i in range(2) if source.sample(i, (), "folder")["id"] == "e")
    images = scoring.at_size((i, maps) for i, maps in run.predict_split(source) if i == index)
    edges = EdgeScores(source, run.experiment.dataset.edge_rule("survey"), num_workers=0)
    alone = scoring.final(images, source, rules, "folder", edges).results
    for task in ("edge", "depth"):
        np.testing.assert_equal(alone[task], results[task])

    assert predict(run, split_samples(source, "folder", run.tasks), tmp_path / "out") == 2
    assert len(list((tmp_path / "out" / "panels").iterdir())) == 2
