"""Scores against numbers recorded from the reference.

Where we decide differently, a test shows the recorded number and ours side by side, and what accounts for the gap.
"""

import json

import numpy as np
import pytest

from mtl_jax import metrics, protocol
from mtl_jax.evaluation import predictions
from mtl_jax.tasks import TASKS
from parity import golden

COUNTS = 1e-12  # ratios of counts; the reference adds 1e-12 pixels to the denominators of precision and recall
DEPTH = 1e-5  # float32 sums
ANGLE = 1e-3  # degrees; float32 arc cosine
CLASSES = {"PASCALContext": 21, "NYUD": 40}


@pytest.fixture(scope="module")
def arrays():
    return golden.arrays("metrics.npz")


@pytest.fixture(scope="module")
def recorded():
    return json.loads((golden.ROOT / "metrics.json").read_text(encoding="utf-8"))


def meter_batches(arrays, case):
    """Predictions and labels given to the streaming scores, in our forms."""
    for i in range(sum(f"meter/{case}/b{i}/gt" in arrays for i in range(9))):
        label = np.moveaxis(arrays[f"meter/{case}/b{i}/gt"], 1, -1)
        prediction = arrays[f"meter/{case}/b{i}/pred"]
        if case.startswith(("sal", "edge")):
            prediction = prediction.reshape(label.shape)  # the reference drops the channel, and a batch of one
        yield prediction, label


def streaming(arrays, case, metric):
    accumulator = metrics.Accumulator(metric)
    for prediction, label in meter_batches(arrays, case):
        accumulator.update(metric.update(prediction, label))
    return accumulator.compute()


def score(metric, prediction, label):
    accumulator = metrics.Accumulator(metric)
    accumulator.update(metric.update(prediction, label))
    return accumulator.compute()


def disk_samples(arrays, case, task, samples):
    """Stored predictions, resized to the label's size, and labels, each with a batch axis of one.

    Ours always have that size. The reference resizes others when it reads them, saliency to the nearest pixel.
    """
    resized_as = "semseg" if task == "sal" else task
    for sample in samples:
        label = arrays[f"disk/{case}/{sample}/gt"]
        label = label if task == "normals" else label[..., None]
        stored = arrays.get(f"disk/{case}/{sample}/pred")
        if stored is None:  # the reference never opens the file
            stored = np.zeros(label.shape if task == "normals" else label.shape[:2], np.uint8)
        if stored.ndim == 2 and not TASKS[task].kind.has_classes:
            stored = stored[..., None]
        yield predictions.resize_prediction(resized_as, stored, label.shape[:2])[None], label[None]


def final(arrays, recorded, case, task, metric):
    accumulator = metrics.Accumulator(metric)
    for prediction, label in disk_samples(arrays, case, task, recorded[f"disk/{case}"]["samples"]):
        accumulator.update(metric.update(prediction, label))
    return accumulator.compute()


@pytest.mark.parametrize("data", CLASSES)
@pytest.mark.parametrize("variant", ["", "_one_batch", "_single_image"])
def test_streaming_semseg(arrays, recorded, data, variant):
    got = streaming(arrays, f"semseg_{data}{variant}", metrics.Segmentation(CLASSES[data]))
    want = recorded[f"meter/semseg_{data}{variant}"]
    assert got["mIoU"] == pytest.approx(want["mIoU"], abs=COUNTS)
    np.testing.assert_allclose(got["per_class_IoU"], want["jaccards_all_categs"], rtol=0, atol=COUNTS)


@pytest.mark.parametrize("data", CLASSES)
def test_final_semseg(arrays, recorded, data):
    got = final(arrays, recorded, f"semseg_{data}", "semseg", metrics.Segmentation(CLASSES[data]))
    want = recorded[f"disk/semseg_{data}"]
    assert got["mIoU"] == pytest.approx(want["mIoU"], abs=COUNTS)
    np.testing.assert_allclose(got["per_class_IoU"], want["jaccards_all_categs"], rtol=0, atol=COUNTS)


def test_human_parts(arrays, recorded):
    build = metrics.METRICS["human_parts"]
    got = {
        "meter/human_parts": streaming(arrays, "human_parts", build(metrics.Options(7))),
        "disk/human_parts": final(
            arrays,
            recorded,
            "human_parts",
            "human_parts",
            build(metrics.Options(7, final=True, empty_is_unlabelled=True)),
        ),
    }
    for case, result in got.items():
        assert result["mIoU"] == pytest.approx(recorded[case]["mIoU"], abs=COUNTS)
        want = recorded[case]["jaccards_all_categs"]
        np.testing.assert_allclose(result["per_class_IoU"], want, rtol=0, atol=COUNTS)


def check_saliency(got, want):
    names = {
        "mIoU": "mIoU",
        "maxF": "maxF",
        "IoU_per_threshold": "mIoUs",
        "precision_per_threshold": "mPrec",
        "recall_per_threshold": "mRec",
        "F_per_threshold": "F",
    }
    for ours, theirs in names.items():
        np.testing.assert_allclose(got[ours], want[theirs], rtol=0, atol=COUNTS, err_msg=ours)


def test_streaming_saliency(arrays, recorded):
    """In the reference 255 is foreground, here ignored: eight pixels of the recorded labels."""
    is_label = {key: key.startswith("meter/sal/") and key.endswith("/gt") for key in arrays}
    assert sum((arrays[key] == 255).sum() for key, yes in is_label.items() if yes) == 8
    theirs = {key: np.where(value == 255, 1, value) if is_label[key] else value for key, value in arrays.items()}
    check_saliency(streaming(theirs, "sal", metrics.Saliency()), recorded["meter/sal"])


def test_final_saliency(arrays, recorded):
    """The reference compares float32 maps with float64 thresholds, so that 51 / 255 is above 0.2 (with NumPy 2).

    The grey levels 51, 102, 153 and 204 lie on thresholds. Ours are strict, as the reference's streaming scores are.
    """
    metric, want = metrics.Saliency(), recorded["disk/sal"]
    got, ties_above = metrics.Accumulator(metric), metrics.Accumulator(metric)
    for prediction, label in disk_samples(arrays, "sal", "sal", want["samples"]):
        got.update(metric.update(prediction, label))
        ties_above.update(metric.update(prediction + np.float32(0.01), label))
    check_saliency(ties_above.compute(), want)
    ours, theirs = np.array(got.compute()["IoU_per_threshold"]), np.array(want["mIoUs"])
    np.testing.assert_array_equal(np.flatnonzero(abs(ours - theirs) > COUNTS), [0, 4, 8, 12])
    assert abs(ours - theirs).max() == pytest.approx(0.0191, abs=1e-4)
    for key in ("mIoU", "maxF"):  # both at thresholds between grey levels
        assert got.compute()[key] == pytest.approx(want[key], abs=COUNTS)
    got = final(arrays, recorded, "sal_default_threshold", "sal", metrics.Saliency((0.5,)))
    check_saliency(got, recorded["disk/sal_default_threshold"])


def test_saliency_of_a_single_image(arrays, recorded):
    """The reference loses the batch axis and scores every row as an image; we score the image."""
    want, metric = recorded["meter/sal_single_image"], metrics.Saliency()
    (prediction, label) = next(meter_batches(arrays, "sal_single_image"))
    above, foreground = prediction > 51, label > 0  # 0.2, the best threshold in both
    got = streaming(arrays, "sal_single_image", metric)["mIoU"]
    assert got == (above & foreground).sum() / (above | foreground).sum()
    assert (got, want["mIoU"]) == pytest.approx((0.3523, 0.3560), abs=1e-4)
    check_saliency(score(metric, prediction[0][:, None], label[0][:, None]), want)


def test_normals(arrays, recorded):
    got, want = streaming(arrays, "normals", metrics.Normals()), recorded["meter/normals"]
    for key in ("mean", "11.25", "22.5", "30"):
        assert got[key] == pytest.approx(want[key], abs=ANGLE)
    got, want = final(arrays, recorded, "normals", "normals", metrics.Normals()), recorded["disk/normals"]
    for key in ("mean", "median", "rmse", "11.25", "22.5", "30"):
        assert got[key] == pytest.approx(want[key], abs=ANGLE)


def test_streaming_rmse_of_normals(arrays, recorded):
    """The reference reports the mean under the name rmse while streaming; ours is the root of the mean square."""
    got, want = streaming(arrays, "normals", metrics.Normals()), recorded["meter/normals"]
    assert want["rmse"] == want["mean"]
    angles = []
    for prediction, label in meter_batches(arrays, "normals"):
        a, b = prediction.astype(float) * 2 / 255 - 1, label.astype(float)
        cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
        angles.append(np.degrees(np.arccos(np.clip(cosine, -1, 1)))[label[..., 0] != 255])
    true_rmse = np.sqrt((np.concatenate(angles) ** 2).mean())
    assert got["rmse"] == pytest.approx(true_rmse, abs=1e-6)
    assert got["rmse"] - want["rmse"] == pytest.approx(9.75, abs=0.01)


def test_exact_normals(arrays, recorded):
    """Perfect predictions: 0.0025 degrees for the reference's float32 arc cosine, 0 for ours."""
    got, want = streaming(arrays, "normals_exact", metrics.Normals()), recorded["meter/normals_exact"]
    assert want["mean"] == pytest.approx(2.49e-3, abs=1e-5)
    assert got["mean"] < 1e-5
    assert got["11.25"] == want["11.25"] == 100


def test_normals_without_a_valid_pixel(arrays, recorded):
    """The reference divides by zero; ours is NaN."""
    assert recorded["meter/normals_all_ignored"]["raised"] == "ZeroDivisionError"
    got = streaming(arrays, "normals_all_ignored", metrics.Normals())
    assert np.isnan(list(got.values())).all()


def test_normals_leave_the_label_as_it_is(arrays, recorded):
    """The reference overwrites it: no 255 is left."""
    assert recorded["meter/normals_mutation"]["gt_changed"]
    assert recorded["meter/normals_mutation"]["n_gt_255_left"] == 0
    prediction, label = next(meter_batches(arrays, "normals"))
    before = label.copy()
    metrics.Normals().update(prediction, label)
    np.testing.assert_array_equal(label, before)
    assert (label == 255).any()


def test_normals_of_another_size(arrays, recorded):
    """The reference raises; ours are resized."""
    assert recorded["disk/normals_other_size"]["raised"] == "error"
    assert arrays["disk/normals_other_size/im0/pred"].shape == (6, 13, 3)
    got = final(arrays, recorded, "normals_other_size", "normals", metrics.Normals())
    assert np.isfinite(list(got.values())).all()


DEPTH_CASES = [
    ("head", "pixel", ""),
    ("head", "pixel", "_no_clamp"),
    ("head", "pixel", "_single_image"),
    ("head", "pixel", "_one_image_all_ignored"),
    ("v1", "image", ""),
    ("v1", "image", "_no_clamp"),
]


@pytest.mark.parametrize(("version", "protocol", "variant"), DEPTH_CASES)
def test_streaming_depth(arrays, recorded, version, protocol, variant):
    got = streaming(arrays, f"depth_{version}{variant}", metrics.Depth(protocol))
    want = recorded[f"meter/depth_{version}{variant}"]
    for key in ("rmse", "log_rmse"):
        assert got[key] == pytest.approx(want[key], abs=DEPTH)


def test_depth_of_each_image(arrays, recorded):
    scores = [
        score(metrics.Depth(), prediction[i : i + 1], label[i : i + 1])
        for prediction, label in meter_batches(arrays, "depth_v1")
        for i in range(len(label))
    ]
    want = recorded["meter/depth_v1_per_image"]
    np.testing.assert_allclose([one["rmse"] for one in scores], want["rmses"], rtol=0, atol=DEPTH)
    np.testing.assert_allclose([one["log_rmse"] for one in scores], want["log_rmses"], rtol=0, atol=DEPTH)


def test_depth_of_a_single_image(arrays, recorded):
    """Image by image, the reference fails on a batch of one; the score of one image is the pixel-wise one."""
    assert recorded["meter/depth_v1_single_image"]["raised"] == "IndexError"
    got = streaming(arrays, "depth_v1_single_image", metrics.Depth("image"))
    for key in ("rmse", "log_rmse"):
        assert got[key] == pytest.approx(recorded["meter/depth_head_single_image"][key], abs=DEPTH)


def test_depth_with_an_image_without_valid_pixels(arrays, recorded):
    """Image by image, the reference is NaN; ours leaves the image out."""
    assert np.isnan(recorded["meter/depth_v1_one_image_all_ignored"]["rmse"])
    got = streaming(arrays, "depth_v1_one_image_all_ignored", metrics.Depth("image"))
    for key in ("rmse", "log_rmse"):
        assert got[key] == pytest.approx(recorded["meter/depth_head_one_image_all_ignored"][key], abs=DEPTH)


def test_depth_starts_afresh(arrays, recorded):
    """The reference's reset keeps what it has accumulated; a new accumulator of ours knows only its own images."""
    batches = list(meter_batches(arrays, "depth_head"))
    metric = metrics.Depth("pixel")
    after_reset, both = metrics.Accumulator(metric), metrics.Accumulator(metric)
    after_reset.update(metric.update(*batches[1]))
    for chosen in batches[:2]:
        both.update(metric.update(*chosen))
    want = recorded["meter/depth_head_reset_between_b0_and_b1"]["rmse"]
    assert both.compute()["rmse"] == pytest.approx(want, abs=DEPTH)
    assert abs(after_reset.compute()["rmse"] - want) > 0.01


@pytest.mark.parametrize(("version", "protocol"), [("head", "pixel"), ("v1", "image")])
def test_final_depth(arrays, recorded, version, protocol):
    got = final(arrays, recorded, f"depth_{version}_all_valid", "depth", metrics.Depth(protocol))
    for key in ("rmse", "log_rmse"):
        assert got[key] == pytest.approx(recorded[f"disk/depth_{version}_all_valid"][key], abs=DEPTH)


def depth_errors(arrays, recorded, case, clamp):
    """{key: squared errors of each image} and their masks of valid pixels, invalid labels as 1e-9."""
    errors, masks = {"rmse": [], "log_rmse": []}, []
    for prediction, label in disk_samples(arrays, case, "depth", recorded[f"disk/{case}"]["samples"]):
        p, g = clamp(prediction.astype(float)), np.maximum(label.astype(float), 1e-9)
        errors["rmse"].append((p - g) ** 2)
        errors["log_rmse"].append((np.log(p) - np.log(g)) ** 2)
        masks.append(label != 0)
    return errors, masks


def raise_all(p):
    return np.maximum(p, 1e-9)


def raise_nonpositive(p):
    return np.where(p <= 0, 1e-9, p)


def test_final_depth_over_pixels(arrays, recorded):
    """From disk the reference raises what is <= 0 to 1e-9 and keeps 1e-12; ours raises all, as both do streaming."""
    got, want = final(arrays, recorded, "depth_head", "depth", metrics.Depth("pixel")), recorded["disk/depth_head"]
    for clamp, scores in ((raise_nonpositive, want), (raise_all, got)):
        errors, masks = depth_errors(arrays, recorded, "depth_head", clamp)
        for key in ("rmse", "log_rmse"):
            valid = np.concatenate([e[m] for e, m in zip(errors[key], masks, strict=True)])
            assert scores[key] == pytest.approx(np.sqrt(valid.mean()), abs=DEPTH)
    assert got["rmse"] == pytest.approx(want["rmse"], abs=DEPTH)
    assert (got["log_rmse"], want["log_rmse"]) == pytest.approx((2.4103, 2.7545), abs=1e-4)


def test_final_depth_image_by_image(arrays, recorded):
    """The reference adds the errors of invalid pixels (label 1e-9) to the sums; ours counts valid pixels only."""
    got, want = final(arrays, recorded, "depth_v1", "depth", metrics.Depth("image")), recorded["disk/depth_v1"]
    theirs, masks = depth_errors(arrays, recorded, "depth_v1", raise_nonpositive)
    ours, _ = depth_errors(arrays, recorded, "depth_v1", raise_all)
    for key, middle in (("rmse", np.mean), ("log_rmse", np.median)):
        inflated = [np.sqrt(e.sum() / m.sum()) for e, m in zip(theirs[key], masks, strict=True)]
        assert middle(inflated) == pytest.approx(want[key], abs=DEPTH)
        valid_only = [np.sqrt(e[m].mean()) for e, m in zip(ours[key], masks, strict=True)]
        assert middle(valid_only) == pytest.approx(got[key], abs=DEPTH)
        assert want[key] - got[key] > 0.5


def edge_loss(arrays, case, transform, pos_weight):
    """Mean over batches of the balanced cross-entropy of `transform(prediction / 255)`."""
    losses = []
    for prediction, label in meter_batches(arrays, case):
        p, y = transform(prediction.astype(float) / 255), label >= 0.5
        w = (~y).mean() if pos_weight is None else pos_weight
        losses.append((-w * np.log(p[y]).sum() - (1 - w) * np.log(1 - p[~y]).sum()) / y.size)
    return np.mean(losses)


def test_edge_loss(arrays, recorded):
    """The reference applies the sigmoid to what is a probability already; ours takes the probability as it is."""

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    for case, pos_weight in (("edge_w0.95", 0.95), ("edge_none", None), ("edge_w0.95_single_image", 0.95)):
        assert edge_loss(arrays, case, sigmoid, pos_weight) == pytest.approx(
            recorded[f"meter/{case}"]["loss"], abs=1e-7
        )
    for case, value in (("edge_w0.95", 0.03798), ("edge_w0.95_single_image", 0.02763)):
        got = streaming(arrays, case, metrics.Edge())["loss"]
        assert got == pytest.approx(edge_loss(arrays, case, lambda x: x, 0.95), abs=1e-12)
        assert got == pytest.approx(value, abs=1e-5)


def test_multi_task_performance(recorded):
    for example in recorded["multi_task_performance"]:
        criteria = protocol.get("survey").criteria(example["multi_task"], final=True)
        got = metrics.delta_m(example["multi_task"], example["single_task"], criteria)
        assert got == pytest.approx(example["result"], abs=1e-12)
