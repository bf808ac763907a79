"""Confidence intervals over images."""

import numpy as np
import pytest

from mtl_jax import metrics
from mtl_jax.metrics.core import intervals

N = 60


def collected(task, prediction, label):
    accumulator = metrics.Accumulator(metrics.build(task, num_classes=3, final=True))
    accumulator.update(accumulator.metric.update(prediction, label))
    return accumulator


@pytest.fixture
def depth():
    rng = np.random.default_rng(0)
    label = rng.uniform(1, 9, (N, 6, 7, 1))
    return collected("depth", label + rng.normal(size=(N, 1, 1, 1)), label)


def test_interval_of_a_mean(depth):
    """Of a mean over images the bootstrap's interval is close to that of the normal distribution."""
    errors = np.sqrt(depth.stats()["squared_error"] / depth.stats()["pixels"])
    low, high = depth.bootstrap(2000, seed=0)["rmse"]
    half = 1.96 * errors.std() / np.sqrt(N)
    assert low == pytest.approx(errors.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(errors.mean() + half, abs=0.15 * half)


def test_level_and_seed(depth):
    wide, narrow = (depth.bootstrap(200, 0, level)["rmse"] for level in (0.95, 0.5))
    assert wide[0] < narrow[0] < depth.compute()["rmse"] < narrow[1] < wide[1]
    assert depth.bootstrap(200, 0) == depth.bootstrap(200, 0) != depth.bootstrap(200, 1)


def test_equal_images_have_no_spread():
    rng = np.random.default_rng(0)
    prediction, label = (np.repeat(rng.integers(0, 3, (1, 6, 7)), 5, axis=0) for _ in range(2))
    found = collected("semseg", prediction, label[..., None])
    assert found.bootstrap(20, 0)["mIoU"] == (found.compute()["mIoU"],) * 2
    assert "per_class_IoU" not in found.bootstrap(20, 0)


def test_the_median_of_normals_has_none():
    rng = np.random.default_rng(0)
    label = rng.normal(size=(5, 6, 7, 3))
    found = collected("normals", rng.uniform(0, 255, (5, 6, 7, 3)), label)
    assert set(found.compute()) - set(found.bootstrap(10, 0)) == {"median"}


def test_without_images_and_without_labels():
    assert metrics.Accumulator(metrics.build("depth", num_classes=1)).bootstrap(10, 0) == {}
    nothing = collected("depth", np.ones((2, 3, 3, 1)), np.zeros((2, 3, 3, 1)))
    assert np.isnan(nothing.bootstrap(10, 0)["rmse"]).all()


def test_arguments():
    with pytest.raises(ValueError, match=r"got 0 resamples and the level 0\.95"):
        intervals(lambda images: {}, 3, 0, seed=0)
    with pytest.raises(ValueError, match="the level 95"):
        intervals(lambda images: {}, 3, 10, seed=0, level=95)


def test_a_class_in_few_images_does_not_lower_the_interval_of_miou():
    """Most drawings of these images miss the third class, and one of the four classes is in none."""
    label = np.zeros((N, 6, 7), np.int64)
    label[:, 3:] = 1
    label[0, 0] = 2
    prediction = np.where(np.random.default_rng(0).random(label.shape) < 0.1, 1 - label.clip(max=1), label)
    accumulator = metrics.Accumulator(metrics.build("semseg", num_classes=4, final=True))
    accumulator.update(accumulator.metric.update(prediction, label[..., None]))
    found, scores = accumulator.bootstrap(500, 0), accumulator.compute()
    for name in ("mIoU", "mIoU_present", "pixel_accuracy", "mean_accuracy"):
        low, high = found[name]
        assert low < scores[name] < high
    assert found["mIoU"] == pytest.approx([0.75 * value for value in found["mIoU_present"]])
