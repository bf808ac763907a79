"""The choice of the training images that keep their labels."""

import logging
import re

import numpy as np
import pytest

from mtl_jax import config_overrides, experiment
from mtl_jax.config import Config, Data, Model, validate
from mtl_jax.data import label_fraction, loader
from mtl_jax.tasks import IGNORE
from mtl_jax.train.loop import fit
from tests import tiny
from tests.data import own_folder
from tests.train import runs

IDS = [f"image_{i:03d}" for i in range(200)]
EVERY = {"semseg": range(200), "depth": range(200), "edge": range(200)}
PARTLY = {"semseg": range(0, 120), "depth": range(60, 200), "edge": [3]}
CHOICES = list(label_fraction.LABEL_IMAGES)


def chosen(fractions, images="same", seed=0, ids=IDS, labelled=EVERY):
    """{task: ids of the images that keep its label}."""
    kept = label_fraction.choose(ids, labelled, fractions, images, seed)
    return {task: {ids[position] for position in positions} for task, positions in kept.items()}


@pytest.mark.parametrize("images", CHOICES)
@pytest.mark.parametrize("labelled", [EVERY, {"semseg": range(0, 120), "depth": range(60, 200)}])
def test_fractions_are_nested(images, labelled):
    smaller, greater = (chosen({"all": share}, images, labelled=labelled) for share in (0.1, 0.2))
    for task in labelled:
        assert smaller[task] < greater[task], task
        if images != "one_label":
            assert (len(smaller[task]), len(greater[task])) == (len(labelled[task]) / 10, len(labelled[task]) / 5)


@pytest.mark.parametrize("images", CHOICES)
def test_the_order_of_the_images_changes_nothing(images):
    order = np.random.default_rng(0).permutation(200)
    labelled = {task: [i for i in range(200) if order[i] in there] for task, there in PARTLY.items() if task != "edge"}
    unchanged = {task: PARTLY[task] for task in labelled}
    shuffled = chosen({"all": 0.3}, images, ids=[IDS[i] for i in order], labelled=labelled)
    assert shuffled == chosen({"all": 0.3}, images, labelled=unchanged)


def test_another_seed_chooses_other_images():
    for images in CHOICES:
        assert chosen({"all": 0.5}, images)["depth"] != chosen({"all": 0.5}, images, seed=1)["depth"]


def test_tasks_share_their_images_or_not():
    same = chosen({"depth": 0.1, "edge": 0.2})
    assert same["depth"] < same["edge"] < same["semseg"] == set(IDS)
    own = chosen({"all": 0.1}, "independent")
    assert own["depth"] != own["edge"]
    assert chosen({"depth": 0.1, "all": 0.5}, "independent")["depth"] == own["depth"]


def test_one_label_an_image():
    kept = chosen({}, "one_label")
    assert set().union(*kept.values()) == set(IDS)
    assert sum(map(len, kept.values())) == 200
    assert min(map(len, kept.values())) > 40  # about a third of them each
    half = chosen({"all": 0.5}, "one_label")
    assert {task: len(half[task]) for task in half} == {task: round(len(kept[task]) / 2) for task in kept}
    assert all(half[task] < kept[task] for task in kept)
    assert chosen({}, "one_label", labelled=PARTLY)["depth"] >= set(IDS[120:])  # they have no other label


def test_a_fraction_without_an_image_is_an_error():
    with pytest.raises(ValueError, match=r"keeps 0\.1 of the labels of edge, which are 1, and that is no image"):
        chosen({"all": 0.1}, labelled=PARTLY)
    assert chosen({"all": 0.1, "edge": 1.0}, labelled=PARTLY)["edge"] == {IDS[3]}
    assert chosen({"all": 0.5}, labelled={"depth": range(200), "edge": []})["edge"] == set()


def test_images_need_ids():
    with pytest.raises(ValueError, match="1 ids stand for several training images, for example ''; give every image"):
        chosen({"all": 0.5}, ids=["", "", *IDS[2:]])


def config(data_dir, fractions, images="same", tasks=("semseg", "depth"), seed=0):
    made = tiny.config(data_dir, epochs=1, batch_size=2)
    made.data.tasks, made.data.label_fraction, made.data.label_images = tasks, fractions, images
    made.model, made.train.seed = Model("baseline", "tiny"), seed
    return made


def labelled_ids(made):
    """{task: ids of the images of the training split that have its label}, as training reads it."""
    run = experiment.make(made)
    source = run.training_labels.open()
    samples = [source.sample(i, run.all_tasks, run.conventions) for i in range(len(source))]
    assert all(len(sample) > 2 for sample in samples)  # every image has a label
    kept = {task: {sample["id"] for sample in samples if task in sample} for task in run.all_tasks}
    assert run.training_labels.counts() == {task: len(ids) for task, ids in kept.items()}
    return kept


def test_training_reads_the_chosen_labels_alone(data_dir):
    kept = labelled_ids(config(data_dir, {"depth": 0.25}))
    assert {task: len(ids) for task, ids in kept.items()} == {"semseg": 12, "depth": 3}
    assert labelled_ids(config(data_dir, {"depth": 0.25}, seed=5)) == kept  # the seed of the run is another
    assert labelled_ids(config(data_dir, {"depth": 0.25}, tasks=("depth",)))["depth"] == kept["depth"]
    few = labelled_ids(config(data_dir, {"all": 0.25}))
    assert few["semseg"] == few["depth"] == kept["depth"]
    alone = labelled_ids(config(data_dir, {}, "one_label"))
    assert not alone["semseg"] & alone["depth"]
    assert len(alone["semseg"] | alone["depth"]) == 12


def test_missing_labels_are_ignored_in_batches(data_dir):
    run = experiment.make(config(data_dir, {"depth": 0.25}))
    source = run.training_labels.open()
    options = {"conventions": run.conventions, "tasks": run.all_tasks, "recipe": "none", "size": (64, 64)}
    batch = next(loader.train_batches(source, batch_size=12, seed=0, **options))
    assert ((batch["depth"] != IGNORE).any(axis=(1, 2, 3))).sum() == 3
    assert (batch["semseg"] != IGNORE).any(axis=(1, 2, 3)).all()


def test_other_splits_and_evaluation_have_all_labels(data_dir):
    run = experiment.make(config(data_dir, {"all": 0.25}))
    assert len(run.training_labels.open()) == 3
    for split, number in (("train", 12), ("val", 5)):
        source = run.open_split(split, run.all_tasks)
        assert len(source) == number
        assert {"semseg", "depth"} < set(source.sample(number - 1, run.all_tasks, run.conventions))
    everything = run.training_labels.open(every_image=True)
    assert len(everything) == 12
    assert everything.fingerprint() != run.open_split("train", run.all_tasks).fingerprint()


def test_a_folder_with_missing_labels(tmp_path):
    ids = {"train": ["a", "b", "c", "d", "e"], "val": ["f"]}
    label = own_folder.encoded(np.zeros((own_folder.H, own_folder.W, 1), np.uint8))
    toml = "[tasks.semseg]\nclasses = 2\n[tasks.edge]\n"
    root = own_folder.write(tmp_path / "raw", toml, {"semseg.png": label, "edge.png": label}, ids)
    (root / "edge" / "a.png").unlink()
    data = Data("folder", manual_dir=str(root), data_dir=str(tmp_path / "tfds"), label_fraction={"edge": 0.5})
    run = experiment.make(experiment.resolve(Config(data, Model("baseline", "hrnet_w18"))))
    assert run.training_labels.counts() == {"semseg": 5, "edge": 2}
    source = run.training_labels.open()
    labelled = [set(source.sample(i, run.all_tasks, run.conventions)) - {"id", "image"} for i in range(len(source))]
    assert labelled[0] == {"semseg"}  # image a never had another label
    assert sum("edge" in names for names in labelled) == 2


def test_the_log_says_what_is_kept(data_dir, tmp_path, monkeypatch, caplog):
    tiny.register_backbones(monkeypatch)
    made = config(data_dir, {"depth": 0.5})
    with caplog.at_level(logging.INFO, "mtl_jax"):
        fit(made, tmp_path / "run")
    (start,) = (each.getMessage() for each in caplog.records if each.getMessage().startswith("training\n"))
    assert re.search(r"\nlabels +fractions of the training labels: semseg 1, depth 0.5 \(same, seed 0\)\n", start)
    assert re.search(r"\ntask depth .*; labels: train 6, val 5\n", start)
    made.data.label_seed = 1
    with pytest.raises(ValueError, match=r"another configuration \(data\.label_seed: 0 there, 1 now\)"):
        fit(made, tmp_path / "run")


@pytest.mark.slow
def test_an_interrupted_run_goes_on_with_the_same_labels(data_dir, tmp_path, monkeypatch):
    tiny.register_backbones(monkeypatch)
    made = config(data_dir, {"semseg": 0.5, "depth": 0.25})
    made.train.epochs, made.train.checkpoint_every = 2, 2
    fit(made, tmp_path / "whole")
    runs.fit_and_kill(made, tmp_path / "parts", step=4)
    fit(made, tmp_path / "parts")
    assert runs.log(tmp_path / "parts") == runs.log(tmp_path / "whole")


def test_the_command_line_takes_one_number_or_one_for_a_task():
    made = Config(Data(tasks=("semseg", "depth")))
    overrides, _ = config_overrides.split(["--data.label_fraction=0.1", "--data.label_fraction.depth=0.5"])
    assert config_overrides.apply(made, overrides).data.label_fraction == {"all": 0.1, "depth": 0.5}
    validate(made)
    (wrong,), _ = config_overrides.split(["--data.label_fraction=10%"])
    with pytest.raises(
        ValueError, match=r"'10%'; expected a mapping \{name: a finite number\}, or a number for all names"
    ):
        config_overrides.apply(made, [wrong])
    for fractions, message in (
        ({"edge": 0.1}, r"data\.label_fraction names edge; the tasks of this configuration are semseg, depth, all"),
        ({"depth": 0.0}, r"data\.label_fraction has 0\.0 for depth; give a number above 0 and at most 1"),
    ):
        made.data.label_fraction = fractions
        with pytest.raises(ValueError, match=message):
            validate(made)
