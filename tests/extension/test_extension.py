"""A module outside of the package adds a task, a loss, a metric, a backbone, a model and a data set, and uses them."""

import json

import numpy as np
import pytest

from mtl_jax import backbones, experiment, losses, metrics, models, tasks, weights
from mtl_jax.config import Config, Data, Model, Optim, Train
from mtl_jax.data import catalogue, datasets
from mtl_jax.drawing import contact_sheet, panels
from mtl_jax.inference import export, model, predict, teacher
from mtl_jax.inference.evaluate import evaluate_run
from mtl_jax.labels import Conventions
from mtl_jax.registry import Registry
from mtl_jax.train.loop import fit

MODULE = "tests.extension.shapes"
TABLES: tuple[Registry, ...] = (
    tasks.TASKS,
    losses.LOSSES,
    metrics.METRICS,
    backbones.BACKBONES,
    models.MODELS,
    catalogue.DATASETS,
    catalogue.BUILDERS,
)


@pytest.fixture(scope="module", autouse=True)
def _only_here():
    """Other tests do not see what the extension registers."""
    before = [set(table) for table in TABLES]
    yield
    for table, names in zip(TABLES, before, strict=True):
        for name in set(table) - names:
            del table[name]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("tfds"))
    return experiment.resolve(
        Config(
            # a worker process reads the images: it imports the module too
            data=Data("shapes", ("semseg", "heat"), release="v1", data_dir=folder, num_workers=1),
            model=Model("gated", "patches", options={"width": 12}),
            optim=Optim(lr=1e-2),
            train=Train(batch_size=4, epochs=2, eval_final_epochs=1, log_every=1, eval_batch_size=3),
            losses={"semseg": "scaled_cross_entropy"},
            loss_weights={"heat": 3.0},
            imports=(MODULE,),
        )
    )


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    fit(config, folder)
    return folder


def test_it_trains_with_the_loss_and_the_weight_that_the_configuration_chooses(workdir):
    lines = [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "train"]
    assert len(steps) == 4
    for line in steps:
        assert line["loss/total"] == pytest.approx(line["loss/semseg"] + 3 * line["loss/heat"], rel=1e-5)
    # The scaled cross-entropy of three classes that are equally likely; the unscaled one would be log 3.
    assert steps[0]["loss/semseg"] == pytest.approx(0.5 * np.log(3), rel=0.3)
    assert next(line for line in lines if line["kind"] == "eval")["heat/mean_error"] > 0


def test_it_evaluates_from_the_work_directory(workdir):
    report = evaluate_run(workdir)
    assert 0 < report["results"]["heat"]["mean_error"] < 1
    assert len(report["results"]["semseg"]["per_class_IoU"]) == 3
    assert report["protocol"]["edge"] == "none"


def test_it_predicts_and_draws(workdir, tmp_path):
    from tests.extension import shapes

    stored = experiment.make(experiment.load_config(workdir))
    run, source = model.from_run(stored, workdir, "latest"), stored.open_split("val", stored.main_tasks)
    samples = list(predict.split_samples(source, stored.conventions, stored.main_tasks))
    np.testing.assert_array_equal(samples[0]["heat"], shapes.draw(100)["heat"])  # 0.7 stays 0.7
    assert predict.predict(run, samples, tmp_path) == 3
    heat = np.load(tmp_path / "heat" / "shape_100.npy")
    assert heat.shape == (48, 64)
    assert 0 <= heat.min() <= heat.max() <= 1
    assert predict.predict(run, samples[:1], tmp_path / "reference", form="reference") == 1
    assert (tmp_path / "reference" / "heat" / "shape_100.mat").exists()
    assert (tmp_path / "panels" / "shape_100.png").exists()
    sheet = contact_sheet.sheet(samples, stored.main_tasks, names=stored.dataset.class_names)
    assert (sheet == shapes.HOT).all(axis=-1).any()
    assert (panels.colorize("heat", np.zeros((2, 2, 1)), label=True) == shapes.COLD).all()


def test_its_predictions_become_labels_of_another_model(workdir, tmp_path):
    stored = experiment.make(experiment.load_config(workdir))
    run, val = model.from_run(stored, workdir, "latest"), stored.open_split("val", stored.main_tasks)
    samples = teacher.split_samples(stored.open_split("train", ()), stored, ())
    written = teacher.save_labels(run, samples, val, stored, tmp_path / "own")
    assert written.images == {"train": 8, "val": 3}
    builder = datasets.prepare("folder_mt/own", tmp_path / "tfds", written.folder)
    source = datasets.open_split(builder, "train", ("heat",))
    sample = source.sample(0, ("heat",), Conventions())
    np.testing.assert_allclose(sample["heat"][..., 0], run(sample["image"])["heat"].array, atol=1e-5)


def test_a_backbone_of_one_size_says_so(workdir):
    run = model.load(workdir, "latest")
    image = np.zeros((100, 64, 3), np.uint8)
    assert run(image, flip=True)["heat"].array.shape == (100, 64)
    assert run(image, resize="windows")["semseg"].array.shape == (100, 64)
    for options in ({"resize": "none"}, {"scales": (2.0,)}, {"resize": "windows", "window_size": (64, 64)}):
        with pytest.raises(ValueError, match="takes images of 48x64 alone, because its weights depend on the size"):
            run(image, **options)


def test_it_exports(workdir, tmp_path):
    description = export.export_run(
        experiment.load_config(workdir), workdir, "latest", tmp_path / "model.zip", platforms=("cpu",)
    )
    assert description["outputs"]["heat"]["meaning"] == "value in the unit of the labels"
    assert description["outputs"]["semseg"]["classes"] == 3


def test_what_a_table_does_not_know_is_an_error_that_says_what_to_add(config):
    for table in TABLES:
        with pytest.raises(ValueError, match=r"unknown .*'nobody'; the .* are .*register.* adds one"):
            table["nobody"]
    wrong = Model("gated", "patches", options={"depth": 3})
    with pytest.raises(ValueError, match=r"model\.options\.depth is 3, but the options of model gated are width"):
        models.build(Config(config.data, wrong))
    with pytest.raises(ValueError, match=r"imports names the module 'nowhere\.at_all', which cannot be found"):
        experiment.resolve(Config(config.data, imports=("nowhere.at_all",)))


def test_weights_of_an_unknown_layout_are_not_written_silently():
    from flax import nnx

    attention = nnx.MultiHeadAttention(2, 8, decode=False, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="register_layout"):
        weights.to_torch(attention)
