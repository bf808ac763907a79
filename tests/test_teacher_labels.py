"""Training on few labels, a teacher's labels for the other images, and a student that learns from both."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from mtl_jax import experiment, models, weights
from mtl_jax.config import Config, Data, Model, Optim, Train
from mtl_jax.data import datasets, description
from mtl_jax.inference import teacher
from mtl_jax.inference.model import load
from mtl_jax.train import initial_weights
from mtl_jax.train.loop import fit
from tests import scripts, tiny

TASKS = ("semseg", "normals", "edge", "depth")


@pytest.fixture(scope="module", autouse=True)
def _tiny_backbones():
    with pytest.MonkeyPatch.context() as patch:
        tiny.register_backbones(patch)
        yield


@pytest.fixture(scope="module")
def run(data_dir, tmp_path_factory):
    """A teacher that has learned nothing, and the experiment that it is from; a quarter of the images has depth."""
    config = tiny.config(data_dir)
    config.data.tasks, config.data.label_fraction = TASKS, {"depth": 0.25}
    config.model = Model("baseline", "tiny")
    folder = tmp_path_factory.mktemp("runs") / "teacher"
    arrays = weights.to_torch(tiny.randomise_batch_norms(models.build(config)))
    initial_weights.create_workdir(config, folder, arrays)
    return folder, experiment.make(config)


def save_labels(run, folder, *options):
    return scripts.run("predict", "--workdir", run[0], "--step=latest", f"--save_labels={folder}", *options)


def labels_of(root, data_dir):
    """{split: {id: its canonical sample}} of a written folder, as training reads it."""
    config = experiment.resolve(Config(Data("folder", manual_dir=str(root), data_dir=str(data_dir))))
    student = experiment.make(Config(config.data, Model("baseline", "tiny")))
    opened = {split: student.open_split(split, student.all_tasks) for split in ("train", "val")}
    samples = {
        split: [source.sample(i, student.all_tasks, student.conventions) for i in range(len(source))]
        for split, source in opened.items()
    }
    return {split: {sample["id"]: sample for sample in listed} for split, listed in samples.items()}


def real(run, split):
    source = run.open_split(split, run.all_tasks)
    samples = [source.sample(i, run.all_tasks, run.conventions) for i in range(len(source))]
    return {sample["id"]: sample for sample in samples}


def test_missing_labels_are_filled(run, tmp_path):
    process = save_labels(run, tmp_path / "rooms", "--split=train", "--fill")
    assert process.returncode == 0, process.stderr
    assert "12 training and 5 validation images" in process.stdout
    assert "depth: labels of the teacher on 9 training images" in process.stdout
    assert "; labels of the data set on 3\n" in process.stdout
    assert f"mtl train folder:root={tmp_path / 'rooms'} --workdir runs/student" in process.stdout
    written = labels_of(tmp_path / "rooms", tmp_path / "tfds")
    truth = {split: real(run[1], split) for split in ("train", "val")}
    kept = run[1].training_labels.open(every_image=True)
    with_depth = {kept.ids()[i] for i in range(12) if "depth" in kept.sample(i, TASKS, run[1].conventions)}
    assert len(with_depth) == 3
    model = load(run[0], "latest")
    for split, samples in written.items():
        assert samples.keys() == truth[split].keys()
        for key, sample in samples.items():
            wanted = truth[split][key]
            np.testing.assert_array_equal(sample["image"], wanted["image"])
            np.testing.assert_array_equal(sample["semseg"], wanted["semseg"])
            np.testing.assert_array_equal(sample["edge"], wanted["edge"])
            np.testing.assert_allclose(sample["normals"], wanted["normals"], atol=1 / 255)
            if split == "val" or key in with_depth:
                np.testing.assert_array_equal(sample["depth"], wanted["depth"])
            else:
                depth = model(wanted["image"])["depth"].array
                np.testing.assert_allclose(sample["depth"][..., 0], np.where(depth > 0, depth, 0), atol=1e-5)
    assert set(description.read(tmp_path / "rooms").labels) == set(TASKS)


def test_without_fill_every_label_is_the_teachers_and_doubtful_pixels_have_none(run, tmp_path):
    model, images = load(run[0], "latest"), real(run[1], "train")
    stream = model.stream(images.values(), lambda sample: sample["image"], teacher.PredictOptions(), confidence=True)
    predicted = {sample["id"]: finish() for sample, finish in stream}
    least = round(float(np.median(next(iter(predicted.values()))["semseg"].confidence)), 3)
    process = save_labels(run, tmp_path / "rooms", "--split=train", "--limit=3", f"--save_labels_confidence={least}")
    assert process.returncode == 0, process.stderr
    assert "3 training and 5 validation images" in process.stdout
    written = labels_of(tmp_path / "rooms", tmp_path / "tfds")["train"]
    shares = []
    for key, sample in written.items():
        semseg = predicted[key]["semseg"]
        np.testing.assert_array_equal(sample["semseg"][..., 0], np.where(semseg.confidence >= least, semseg.array, 255))
        shares.append((semseg.confidence >= least).mean())
        assert predicted[key]["depth"].confidence is None
    assert 0 < np.mean(shares) < 1
    assert (
        f"semseg: labels of the teacher on 3 training images, {np.mean(shares):.1%} of their pixels" in process.stdout
    )


def test_photographs(run, tmp_path):
    (tmp_path / "photos").mkdir()
    for name in ("a.jpg", "b.png", "c.webp"):
        cv2.imwrite(str(tmp_path / "photos" / name), np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8))
    (tmp_path / "photos" / "d.png").write_text("no image")
    process = save_labels(run, tmp_path / "own", f"--images={tmp_path / 'photos'}")
    assert process.returncode == 1
    assert "1 files could not be read" in process.stderr
    assert "3 training and 5 validation images" in process.stdout
    written = labels_of(tmp_path / "own", tmp_path / "tfds")
    assert list(written["train"]) == ["a", "b", "c"]
    assert written["train"]["c"]["semseg"].shape == (50, 70, 1)
    assert (tmp_path / "own/images/a.jpg").read_bytes() == (tmp_path / "photos/a.jpg").read_bytes()

    (tmp_path / "photos" / "d.png").unlink()
    (tmp_path / "photos" / "a.jpg").rename(tmp_path / "photos" / "val_00003.jpg")
    process = save_labels(run, tmp_path / "other", f"--images={tmp_path / 'photos'}")
    assert "the image 'val_00003' has the id of a validation image; give the file another name" in process.stderr
    assert not (tmp_path / "other" / "dataset.toml").exists()


@pytest.mark.parametrize(
    ("augmentation", "given", "resize"),
    [
        ("", (), "fit"),
        ("invpt", (), "pad"),
        ("custom", ("--resize=fit",), "fit"),
        ("custom", ("--window=64x64",), "windows"),
    ],
)
def test_a_teacher_sees_images_at_the_scale_that_it_learned_from(run, monkeypatch, augmentation, given, resize):
    """A recipe that crops does not enlarge small images."""
    config = dataclasses.replace(run[1].config, data=dataclasses.replace(run[1].config.data, augmentation=augmentation))
    loaded = SimpleNamespace(experiment=experiment.make(config), tasks=TASKS)
    asked, written = [], teacher.Written(Path("rooms"), {"train": 1, "val": 1})
    monkeypatch.setattr("mtl_jax.inference.model.load", lambda *args: loaded)
    monkeypatch.setattr(teacher, "save_labels", lambda *args, **options: asked.append(args[-1]) or written)
    process = save_labels(run, "unused", "--split=train", *given)
    assert process.returncode == 0, process.stderr
    assert [options.resize for options in asked] == [resize]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--split=val",), "so they cannot be its training images; give --split train, or --images"),
        (("--split=train", "--save_labels_confidence=1"), "give a number from 0 to below 1"),
        (("--split=train", "--save_labels_confidence=0.999"), "no pixel of semseg"),
    ],
)
def test_what_is_refused(run, tmp_path, options, message):
    process = save_labels(run, tmp_path / "rooms", *options)
    assert process.returncode == 1
    assert message in process.stderr


def test_a_student_learns_from_the_labels_of_a_teacher_with_few(data_dir, tmp_path):
    def trained(data, name, **options):
        train = Train(batch_size=2, epochs=1, log_every=1, eval_batch_size=4)
        config = experiment.resolve(Config(data, Model("baseline", "tiny"), Optim(lr=1e-3), train))
        fit(config, tmp_path / name)
        return [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]

    few = Data(
        "nyud",
        ("semseg", "depth"),
        builder="rendered_scenes/nyud_tiny",
        data_dir=str(data_dir),
        image_size=(64, 64),
        num_workers=0,
        label_fraction={"all": 0.25},
    )
    assert sum(line["kind"] == "train" for line in trained(few, "teacher")) == 1  # 3 images, 2 a step
    process = save_labels((tmp_path / "teacher",), tmp_path / "rooms", "--split=train", "--fill")
    assert process.returncode == 0, process.stderr
    own = Data("folder", manual_dir=str(tmp_path / "rooms"), data_dir=str(tmp_path / "tfds"), num_workers=0)
    lines = trained(own, "student")
    assert sum(line["kind"] == "train" for line in lines) == 6
    assert all(line["loss/depth"] > 0 for line in lines if line["kind"] == "train")
    assert datasets.count_labelled(
        experiment.make(experiment.load_config(tmp_path / "student")).prepare_data(), "train", ("semseg", "depth")
    ) == {"semseg": 12, "depth": 12}
