import json
from collections.abc import Iterator

import cv2
import jax
import numpy as np
import pytest

from mtl_jax import backbones, experiment, metrics, protocol
from mtl_jax.config import num_channels
from mtl_jax.data import augmentation, catalogue
from mtl_jax.data.records import IMAGE_SIZE
from mtl_jax.evaluation import constant_baseline, predictions, result_files, scoring
from mtl_jax.inference import predict
from mtl_jax.inference.model import from_run
from mtl_jax.inference.restored import Restored
from mtl_jax.runtime import sharding
from mtl_jax.train.loop import fit
from tests import tiny
from tests.drawing.search import shows

NYUD = catalogue.FAMILIES["nyud"]


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_dir):
    """A trained model of two tasks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbones.BACKBONES, "tiny", tiny.build_backbone)
        config = tiny.config(data_dir, epochs=1)
        config.data.tasks, config.model.name = ("semseg", "depth"), "baseline"
        workdir = tmp_path_factory.mktemp("run")
        fit(config, workdir)
        yield Restored(experiment.load_config(workdir), workdir, "best")


@pytest.fixture(scope="module")
def model(run):
    """The same model, ready to predict images of any size."""
    return from_run(run.experiment, run.workdir, "best")


def test_scores_are_the_same_from_memory_and_from_files(run, tmp_path):
    source = run.experiment.open_split("val", run.tasks)
    metrics = run.experiment.final_metrics
    results = scoring.final(scoring.at_size(run.predict_split(source, 2)), source, metrics, NYUD).results
    scoring.save_predictions(run.predict_split(source, 2), source, NYUD, tmp_path)
    from_files = scoring.read_predictions(tmp_path, source, num_channels(run.config, run.tasks))
    again = scoring.final(from_files, source, metrics, NYUD).results
    assert json.dumps(again) == json.dumps(results)


def test_images_are_predicted_alike_whichever_are_left_out(run):
    """As after an interruption. On some CPUs the last bit of a number depends on the image's place in the batch."""
    source = run.experiment.open_split("val", run.tasks)
    everything = dict(run.predict_split(source, 2))
    some = dict(run.predict_split(source, 2, skip={0, 2, 3}))
    assert list(some) == [1, 4]
    for index, maps in some.items():
        for task, value in maps.items():
            np.testing.assert_allclose(value, everything[index][task], rtol=1e-6)
    assert not list(run.predict_split(source, 2, skip=range(5)))


def test_fingerprints_tell_models_apart(run):
    again, other = (Restored(run.config, run.workdir, "best") for _ in range(2))
    assert again.fingerprint == run.fingerprint
    changed = jax.tree.map(lambda x: x + 1 if x.ndim else x, other.state.arrays)
    other.state = other.state._replace(arrays=changed)
    assert other.fingerprint != run.fingerprint


def test_constant_predictions_are_scored_alike(run):
    train, val = (run.experiment.open_split(split, run.tasks) for split in ("train", "val"))
    results = constant_baseline.score(train, val, run.experiment.final_metrics, NYUD)
    iou = results["semseg"]["per_class_IoU"]
    assert sum(value > 0 for value in iou) == 1  # one class is predicted, all others are missed
    depth = np.concatenate([train[i]["depth"].reshape(-1) for i in range(len(train))])
    truth = [val[i]["depth"] for i in range(len(val))]
    mean = depth[depth > 0].mean(dtype=np.float64)
    expected = np.mean([np.sqrt(np.mean((t[t > 0].astype(np.float64) - mean) ** 2)) for t in truth])
    assert results["depth"]["rmse"] == pytest.approx(expected, rel=1e-6)


class Samples:
    """A split of given samples."""

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def labels(self, index, tasks, conventions):
        sample = self.samples[index]
        labels = {key: value for key, value in sample.items() if key in ("id", *tasks)}
        return {IMAGE_SIZE: sample["image"].shape[:2], **labels}


SURVEY = protocol.get("survey")
DEPTH = SURVEY.criteria(("depth",), final=True)
BOTH = SURVEY.criteria(("semseg", "depth"), final=True)
FINAL = {name: metrics.build(name, num_classes=3, final=True) for name in ("semseg", "depth", "edge")}
FINAL |= {"sal": metrics.build("saliency", num_classes=1, final=True)}


def _samples(count):
    """Images of several sizes with labels of four tasks, and predictions at another resolution."""
    rng = np.random.default_rng(0)
    samples, maps = [], []
    for index in range(count):
        size = (8 + index, 10)
        samples.append(
            {
                "id": f"image {index}",
                "image": rng.integers(0, 255, (*size, 3), np.uint8),
                "semseg": rng.integers(0, 3, (*size, 1)).astype(np.uint8),
                "sal": (rng.random((*size, 1)) < 0.4).astype(np.float32),
                "edge": (rng.random((*size, 1)) < 0.2).astype(np.float32),
                "depth": rng.uniform(1, 5, (*size, 1)).astype(np.float32),
            }
        )
        maps.append({task: rng.uniform(0, 255, (6, 6, 1)).astype(np.float32) for task in ("sal", "edge", "depth")})
        maps[-1]["semseg"] = rng.integers(0, 3, (6, 6)).astype(np.int32)
    return samples, maps


def test_a_missing_label_is_left_out_of_its_score_and_its_prediction_is_saved(tmp_path):
    samples, maps = _samples(4)
    for index, task in enumerate(FINAL):
        del samples[index][task]  # each image lacks another label
    results = scoring.final(scoring.at_size(enumerate(maps)), Samples(samples), FINAL, NYUD).results
    scoring.save_predictions(enumerate(maps), Samples(samples), NYUD, tmp_path)
    for index, task in enumerate(FINAL):
        rest = [i for i in range(4) if i != index]
        alone = {task: FINAL[task]}
        chosen = Samples([samples[i] for i in rest])
        images = scoring.at_size(enumerate(maps[i] for i in rest))
        expected = scoring.final(images, chosen, alone, NYUD).results
        assert results[task] == expected[task]
        assert len(list((tmp_path / task).iterdir())) == 4


def test_without_any_label_the_score_is_undefined():
    samples, maps = _samples(2)
    for sample in samples:
        del sample["depth"], sample["sal"]
    results = scoring.final(scoring.at_size(enumerate(maps)), Samples(samples), FINAL, NYUD).results
    assert np.isnan(results["depth"]["rmse"])
    assert np.isnan(results["sal"]["mIoU"])
    assert np.isfinite(results["semseg"]["mIoU"])
    assert "rmse nan" in scoring.table(results)
    reference = {"semseg": {"mIoU": 0.5}, "depth": {"rmse": 1.0}, "sal": {"mIoU": 0.5}, "edge": {"loss": 1.0}}
    decide = SURVEY.criteria(FINAL, final=False)
    assert scoring.score(results, reference, decide) is None
    assert scoring.score(results, None, {"depth": decide["depth"]}) is None
    assert not scoring.can_serve_as_reference(results, BOTH)
    content = result_files.make(results, reference, decide, checkpoint="best", step=1, protocol={"data": "own"})
    assert content["delta_m"] is None
    assert "a task's deciding metric is undefined" in result_files.readable(content)


def test_constants_come_from_the_images_with_a_label():
    samples, _ = _samples(4)
    expected = constant_baseline.score(Samples(samples[:3]), Samples(samples[:3]), FINAL, NYUD)
    for task in FINAL:
        del samples[3][task]
    assert constant_baseline.score(Samples(samples), Samples(samples), FINAL, NYUD) == expected
    nothing = [{key: sample[key] for key in ("id", "image")} for sample in samples]
    undefined = constant_baseline.score(Samples(nothing), Samples(nothing), FINAL, NYUD)
    assert np.isnan([undefined["semseg"]["mIoU"], undefined["edge"]["loss"], undefined["depth"]["rmse"]]).all()
    assert np.isfinite(constant_baseline.score(Samples(nothing), Samples(samples), FINAL, NYUD)["edge"]["loss"])


def test_checkpoints_rank_by_gain_or_by_the_deciding_metric():
    first = {"semseg": {"mIoU": 0.2}, "depth": {"rmse": 1.0}}
    better = {"semseg": {"mIoU": 0.3}, "depth": {"rmse": 0.9}}
    assert scoring.score(first, first, BOTH) == 0
    assert scoring.score(first, None, BOTH) is None
    assert scoring.score(better, first, BOTH) == pytest.approx((0.5 + 0.1) / 2)
    assert scoring.score(better, None, DEPTH) == -0.9
    assert scoring.score({"depth": {"rmse": float("nan")}}, None, DEPTH) is None  # it would never be outranked
    assert scoring.can_serve_as_reference(first, BOTH)
    assert not scoring.can_serve_as_reference(first | {"semseg": {"mIoU": 0.0}}, BOTH)
    assert not scoring.can_serve_as_reference(first | {"depth": {"rmse": float("nan")}}, BOTH)


def test_prediction_on_own_images(model, tmp_path):
    rng = np.random.default_rng(0)
    for name, size in {"a": (50, 70), "b": (64, 40)}.items():
        cv2.imwrite(str(tmp_path / f"{name}.jpg"), rng.integers(0, 255, (*size, 3), np.uint8))
    paths = predict.find_images([str(tmp_path / "*.jpg")])
    assert predict.predict(model, predict.file_samples(paths, []), tmp_path / "out", form="reference") == 2
    assert predictions.load("depth", tmp_path / "out" / "depth" / "a").shape == (50, 70, 1)
    assert predictions.load("semseg", tmp_path / "out" / "semseg" / "b").shape == (64, 40)
    assert cv2.imread(str(tmp_path / "out" / "panels" / "a.png")) is not None


def test_prediction_into_the_folder_of_an_evaluation(model, tmp_path):
    predictions.claim(tmp_path, {"model": "a"}, "runs/a, step 6")
    with pytest.raises(ValueError, match=r"holds predictions that `mtl evaluate` has saved; give another --out"):
        predict.predict(model, [], tmp_path)


def test_prediction_on_an_image_that_lacks_a_label(run, model, tmp_path):
    source = run.experiment.open_split("val", run.tasks)
    first, second = predict.split_samples(source, NYUD, run.tasks, limit=2)
    del second["depth"]
    assert predict.predict(model, [first, second], tmp_path) == 2
    assert np.load(tmp_path / "depth" / f"{second['id']}.npy").shape == (96, 128)
    assert predictions.load("semseg", tmp_path / "semseg" / second["id"]).shape == (96, 128)
    whole, lacking = (cv2.imread(str(tmp_path / "panels" / f"{sample['id']}.png")) for sample in (first, second))
    assert shows(whole, "depth: ground truth")
    assert not shows(lacking, "depth: ground truth")
    assert shows(lacking, "semseg: ground truth")


@pytest.mark.parametrize("how", ["streaming", "predict_images"])
def test_batches_are_closed_where_the_step_fails(how):
    """Worker processes end with them."""

    class Batches(Iterator):
        closed = False

        def __next__(self):
            return {"image": np.zeros((1, 2, 2, 3)), "index": np.zeros(1), "valid": np.ones(1, bool)}

        def close(self):
            self.closed = True

    def step(arrays, batch):
        raise FloatingPointError("in the step")

    batches, mesh = Batches(), sharding.make_mesh()
    use = {
        "streaming": lambda: scoring.streaming(step, None, batches, {}, mesh),
        "predict_images": lambda: next(scoring.predict_images(step, None, batches, mesh)),
    }
    with pytest.raises(FloatingPointError, match="in the step"):
        use[how]()
    assert batches.closed


def test_scores_of_padded_images_are_those_of_the_images(tmp_path):
    """A prediction that is right in the network's input is right at the size of the image, and its files are."""
    samples, _ = _samples(3)  # 8 to 10 rows of 10 pixels, in an input of 12 x 14: nothing is resized
    maps = []
    for sample in samples:
        seen = augmentation.val_transform(sample, (12, 14), "invpt", normalised=False)
        wrong = np.where(seen["semseg"] == 255, 1, seen["semseg"])  # the padding does not count
        maps.append(
            {"semseg": wrong[..., 0].astype(np.int32), "depth": np.where(seen["depth"] == 255, 9, seen["depth"])}
        )
    names = {task: FINAL[task] for task in ("semseg", "depth")}
    results = scoring.final(scoring.at_size(enumerate(maps), "pad"), Samples(samples), names, NYUD).results
    assert results["semseg"]["mIoU"] == 1
    assert results["depth"]["rmse"] == 0
    stretched = scoring.final(scoring.at_size(enumerate(maps)), Samples(samples), names, NYUD).results
    assert stretched["semseg"]["mIoU"] < 0.9
    scoring.save_predictions(enumerate(maps), Samples(samples), NYUD, tmp_path, "pad")
    for sample in samples:
        saved = predictions.load("semseg", predictions.file_path(tmp_path, "semseg", sample["id"]))
        np.testing.assert_array_equal(saved, sample["semseg"][..., 0])
