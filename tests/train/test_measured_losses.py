"""Runs whose losses measure the training split."""

import json
import logging
from dataclasses import replace

import jax
import numpy as np
import pytest

from mtl_jax import experiment
from mtl_jax.config import Model
from mtl_jax.data.records import CorruptRecordError
from mtl_jax.losses import MEASURED, Frequencies
from mtl_jax.train import measured_losses
from mtl_jax.train.loop import fit
from tests import tiny
from tests.train import runs

LOSSES = {
    "semseg": "ce:smoothing=0.1,class_weights=measured+0.5*dice",
    "edge": "bce:positive_weight=measured+dice",
}


def config(data_dir, **changes):
    plain = tiny.config(data_dir, eval_final_epochs=1, checkpoint_every=2)
    data = replace(plain.data, tasks=("semseg", "edge"))
    return replace(plain, data=data, model=Model("baseline", "tiny"), losses=LOSSES, **changes)


@pytest.fixture(scope="module")
def source(data_dir):
    run = experiment.make(config(data_dir))
    return run.open_split("train", run.all_tasks)


def counted(source, task, classes):
    """The frequencies of a task, image by image."""
    run = experiment.make(config(source.path))
    pixels, images, pixels_of_images = np.zeros((3, classes), int)
    for index in range(len(source)):
        label = source.labels(index, [task], run.conventions)[task]
        ids = label if task == "semseg" else np.where(label == 255, 255, label >= 0.5)
        here = np.array([(ids == c).sum() for c in range(classes)])
        pixels, images = pixels + here, images + (here > 0)
        pixels_of_images = pixels_of_images + np.where(here > 0, (ids != 255).sum(), 0)
    return Frequencies(*(tuple(row.tolist()) for row in (pixels, images, pixels_of_images)))


@pytest.mark.slow
def test_a_run_measures_once_and_resumes_bit_identical(tmp_path, data_dir, source, caplog, monkeypatch):
    with caplog.at_level(logging.INFO):
        fit(config(data_dir), tmp_path / "straight")
    expected = {"semseg": counted(source, "semseg", 40), "edge": counted(source, "edge", 2)}
    stored = json.loads((tmp_path / "straight" / measured_losses.FREQUENCIES).read_text())
    assert {task: Frequencies(**{k: tuple(v) for k, v in row.items()}) for task, row in stored.items()} == expected
    weights = "/".join(f"{w:.6g}" for w in MEASURED["class_weights"]["measured"](expected["semseg"]))
    positive = f"{MEASURED['positive_weight']['measured'](expected['edge'])[0]:.6g}"
    assert "counting the labels of semseg, edge in 12 images of rendered_scenes/nyud_tiny" in caplog.text
    assert f"stands for ce:smoothing=0.1,class_weights={weights}+0.5*dice" in caplog.text
    assert f"losses.edge is {LOSSES['edge']}, which stands for bce:positive_weight={positive}+dice" in caplog.text
    assert experiment.load_config(tmp_path / "straight").losses == LOSSES
    line = runs.lines(tmp_path / "straight")[0]
    for task, terms in (("semseg", ("ce", "dice")), ("edge", ("bce", "dice"))):
        assert line[f"loss/{task}"] == pytest.approx(sum(line[f"loss/{task}/{term}"] for term in terms), rel=1e-6)

    runs.fit_and_kill(config(data_dir), tmp_path / "killed", 3)
    monkeypatch.setattr(measured_losses, "count", None)  # what the run has counted is stored
    fit(config(data_dir), tmp_path / "killed")
    (step, straight, _), (other, resumed, _) = (runs.arrays(tmp_path / name) for name in ("straight", "killed"))
    assert step == other == 6
    jax.tree.map(np.testing.assert_array_equal, straight, resumed)
    assert runs.log(tmp_path / "straight") == runs.log(tmp_path / "killed")


def test_a_run_that_has_not_begun_counts_anew(tmp_path, data_dir, source):
    run = experiment.make(config(data_dir))
    path = tmp_path / measured_losses.FREQUENCIES
    path.write_text('{"semseg": "of other data"}')
    objective = measured_losses.objective(run, source, tmp_path)
    assert set(json.loads(path.read_text())) == {"semseg", "edge"}
    assert objective.losses["edge"].startswith("bce:positive_weight=0.")


def test_losses_without_measured_values_read_nothing(tmp_path, data_dir):
    run = experiment.make(replace(config(data_dir), losses={"semseg": "ce+dice"}))
    objective = measured_losses.objective(run, None, tmp_path)
    assert objective.losses["semseg"] == "ce+dice"
    assert objective.losses["edge"] == "edge_cross_entropy"
    assert not list(tmp_path.iterdir())


def test_weights_of_a_file_are_checked(tmp_path, data_dir):
    path = tmp_path / "weights.txt"
    path.write_text("1 2 3")
    run = experiment.make(replace(config(data_dir), losses={"semseg": f"ce:class_weights={path}"}))
    with pytest.raises(ValueError, match="number of class_weights of ce is 3; semseg has 40 classes"):
        measured_losses.objective(run, None, tmp_path)


@pytest.mark.parametrize("skip_corrupt", [False, True])
def test_corrupt_records(data_dir, source, monkeypatch, skip_corrupt):
    """They are left out where training replaces them."""
    settings = config(data_dir)
    settings.data.skip_corrupt = skip_corrupt
    labels = source.labels

    def damaged(index, *arguments):
        if index == 3:
            raise CorruptRecordError("record 3")
        return labels(index, *arguments)

    monkeypatch.setattr(source, "labels", damaged)
    if skip_corrupt:
        assert max(measured_losses.count(experiment.make(settings), source, ["edge"])["edge"].images) == 11
    else:
        with pytest.raises(CorruptRecordError, match="record 3"):
            measured_losses.count(experiment.make(settings), source, ["edge"])


@pytest.mark.slow
def test_the_first_of_two_processes_counts(tmp_path, data_dir, source):
    run = runs.Run(data_dir, tmp_path / "cache")
    options = ("--data.tasks=semseg", "--losses.semseg=ce:class_weights=enet", "--train.epochs=1")
    ended = run.finish(*run.start_together(tmp_path / "run", *options))
    assert [status for status, _ in ended] == [0, 0], ended
    assert sum("counting the labels of semseg" in errors for _, errors in ended) == 1
    stored = json.loads((tmp_path / "run" / measured_losses.FREQUENCIES).read_text())
    assert tuple(stored["semseg"]["pixels"]) == counted(source, "semseg", 40).pixels
