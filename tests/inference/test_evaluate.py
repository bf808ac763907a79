"""Evaluation from Python; tests/evaluation/test_evaluate_files.py runs the script."""

import json

import numpy as np
import pytest

from mtl_jax import backbones, experiment, models, weights
from mtl_jax.codecs import pictures
from mtl_jax.data import records, split
from mtl_jax.evaluation import predictions, result_files
from mtl_jax.inference import evaluate
from mtl_jax.inference.evaluate import Options, evaluate_files, evaluate_run
from mtl_jax.train import initial_weights
from tests import tiny

BUILDER = "rendered_scenes/nyud_tiny"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, data_dir):
    """An untrained model of two tasks as a work directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbones.BACKBONES, "tiny", tiny.build_backbone)
        config = tiny.config(data_dir)
        config.data.tasks, config.model.name = ("semseg", "depth"), "baseline"
        path = tmp_path_factory.mktemp("runs") / "run"
        initial_weights.create_workdir(config, path, weights.to_torch(models.build(config)))
        yield path


def test_a_run_and_its_files_have_the_same_scores(workdir, data_dir, tmp_path):
    report = evaluate_run(workdir, "latest", save_predictions=tmp_path / "saved")
    assert (report["checkpoint"], report["step"], report["delta_m"]) == ("latest", 0, None)
    assert json.loads((workdir / "results_latest.json").read_text()) == json.loads(json.dumps(report))
    assert not list(workdir.glob("*.partial*"))
    options = Options(data_dir=str(data_dir), num_workers=0)
    files = evaluate_files(tmp_path / "saved", "nyud", options, builder=BUILDER)
    assert json.dumps(files["results"]) == json.dumps(report["results"])
    assert (files["checkpoint"], files["step"], files["protocol"]) == (None, None, report["protocol"])
    assert result_files.read(tmp_path / "saved" / "results.json") == files


def test_the_padding_of_an_augmentation_that_pads_is_cut_off(data_dir, tmp_path, monkeypatch):
    """Images of 96 x 128 lie in the middle of an input of 128 x 160, and keep their size."""
    monkeypatch.setitem(backbones.BACKBONES, "tiny", tiny.build_backbone)
    config = tiny.config(data_dir)
    config.data.augmentation, config.data.image_size = "invpt", (128, 160)
    path = tmp_path / "run"
    initial_weights.create_workdir(config, path, weights.to_torch(models.build(config)))
    report = evaluate_run(path, "latest", save_predictions=tmp_path / "saved")
    run = evaluate.Restored(experiment.make(config), path, "latest")
    source = run.experiment.open_split("val", ("depth",))
    for index, maps in run.predict_split(source):
        inside = maps["depth"][16:112, 16:144, 0]
        record = source.labels(index, (), run.experiment.conventions)
        saved = predictions.load("depth", predictions.file_path(tmp_path / "saved", "depth", record["id"]))
        np.testing.assert_array_equal(saved[..., 0], inside)
    assert evaluate_run(path, "latest")["results"] == report["results"]


def test_options(workdir):
    report = evaluate_run(workdir, options=Options("astmt", num_workers=0, bootstrap=10, constant_baseline=True))
    stored = result_files.read(workdir / "results_astmt.json")
    assert stored["protocol"] == report["protocol"] == report["protocol"] | {"depth": "pixel"}
    low, high = report["intervals"]["depth"]["rmse"]
    assert low <= report["results"]["depth"]["rmse"] <= high
    assert np.isfinite(report["constant"]["depth"]["rmse"])
    same = evaluate_run(workdir, options=Options("survey"))  # the run's own
    assert (workdir / "results.json").exists()
    assert same["protocol"]["depth"] == "image"


def test_an_interrupted_evaluation_predicts_only_the_rest(workdir, monkeypatch):
    whole = evaluate_run(workdir)
    skipped = []
    predict = evaluate.Restored.predict_split

    def predict_split(self, source, batch_size=0, skip=()):
        skipped.append(sorted(skip))
        return predict(self, source, batch_size, skip)

    def broken(*args, **options):
        raise OSError("no space left")

    monkeypatch.setattr(evaluate.Restored, "predict_split", predict_split)
    with monkeypatch.context() as patch:
        patch.setattr(evaluate.result_files, "write", broken)
        with pytest.raises(OSError, match="no space left"):
            evaluate_run(workdir)
    assert (workdir / "results.partial").exists()
    assert evaluate_run(workdir) == whole
    assert skipped == [[], [0, 1, 2, 3, 4]]
    assert not list(workdir.glob("*.partial*"))


def test_every_image_is_decoded_once_and_the_scores_are_those_of_decoded_images(workdir, monkeypatch):
    decode, images = pictures.decode, []

    def counted(data, channels):
        images.extend([data] if channels == 3 else [])  # labels of these tasks have one channel
        return decode(data, channels)

    monkeypatch.setattr(pictures, "decode", counted)
    evaluate_run(workdir, batch_size=5)
    assert len(images) == len(set(images)) == 5
    report = (workdir / "results.json").read_bytes()

    def labels_of_samples(self, index, tasks, conventions):
        sample = self.sample(index, tasks, conventions)
        return {**sample, records.IMAGE_SIZE: sample["image"].shape[:2]}

    monkeypatch.setattr(split.Split, "labels", labels_of_samples)
    (workdir / "results.json").unlink()
    evaluate_run(workdir, batch_size=5)
    assert len(images) == 3 * 5
    assert (workdir / "results.json").read_bytes() == report


def test_wrong_folders_are_refused(workdir, tmp_path):
    with pytest.raises(FileNotFoundError, match="has no step 3; it has 0"):
        evaluate_run(workdir, "3")
    with pytest.raises(FileNotFoundError, match="is no work directory of a run"):
        evaluate_run(tmp_path)
    with pytest.raises(ValueError, match="is the work directory of a run"):
        evaluate_files(workdir, "nyud")
    with pytest.raises(ValueError, match="has no sub-folder of a task of nyud: semseg"):
        evaluate_files(tmp_path, "nyud")
