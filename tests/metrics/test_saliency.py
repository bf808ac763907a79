import numpy as np
import pytest

from mtl_jax.metrics import Accumulator, Saliency
from mtl_jax.metrics.saliency import PIXEL_THRESHOLDS, THRESHOLDS


def score(prediction, label, thresholds=(0.5,)):
    metric = Saliency(thresholds)
    accumulator = Accumulator(metric)
    accumulator.update(metric.update(np.array(prediction)[..., None], np.array(label)[..., None]))
    return accumulator.compute()


def test_by_hand():
    result = score([[[200, 200, 0, 0]], [[0, 0, 0, 0]]], [[[1, 0, 1, 1]], [[0, 0, 0, 0]]])
    assert result["mIoU"] == (1 / 4 + 1) / 2  # an empty prediction of an empty label is right
    assert result["precision_per_threshold"] == [(1 / 2 + 0) / 2]
    assert result["recall_per_threshold"] == pytest.approx([(1 / 3 + 0) / 2], abs=1e-15)
    assert result["maxF"] == pytest.approx(2 * (1 / 4) * (1 / 6) / (1 / 4 + 1 / 6), abs=1e-15)


def test_the_best_threshold_decides():
    result = score([[[100, 200, 0]]], [[[1, 1, 0]]], (0.2, 0.5))
    assert result["IoU_per_threshold"] == [1, 1 / 2]
    assert result["mIoU"] == result["maxF"] == 1


def test_thresholds_are_strict_for_every_grey_level():
    grey = np.arange(256, dtype=np.uint8).reshape(1, 1, 256, 1)
    stats = Saliency().update(grey, np.ones_like(grey))
    assert stats["predicted"].tolist() == [[int((np.arange(256) / 255 > t).sum()) for t in THRESHOLDS]]


def test_unlabelled_images_and_ignored_pixels_do_not_count():
    """An image without a label is not one whose label is empty."""
    prediction, label = [[[200, 200, 0, 0]], [[0, 0, 0, 0]]], [[[1, 255, 1, 0]], [[255, 255, 255, 255]]]
    result = score(prediction, label)
    assert result["mIoU"] == 1 / 2
    assert result["precision_per_threshold"] == [1]
    assert result["recall_per_threshold"] == [1 / 2]
    assert score(prediction, [label[0], [[0, 0, 0, 0]]])["mIoU"] == (1 / 2 + 1) / 2


def test_f_over_the_pixels_of_all_images():
    """A probability of 0.2007 is the logit of 0.55, the first threshold above 0. Without a label nothing counts."""
    prediction = [[[255 * 0.3, 255 * 0.3, 255 * 0.1, 0]], [[0, 0, 0, 255 * 0.3]]]
    label = [[[1, 0, 1, 0]], [[1, 0, 255, 255]]]
    precision, recall = 1 / 2, 1 / 3
    assert score(prediction, label)["maxF_pixel"] == pytest.approx(
        max(1.3 * precision * recall / (0.3 * precision + recall), 1.3 * (3 / 6) * 1 / (0.3 * 3 / 6 + 1))
    )
    assert score([[[255.0, 0]]], [[[1, 0]]])["maxF_pixel"] == 1
    assert score([[[255.0, 0]]], [[[0, 0]]])["maxF_pixel"] == 0  # no recall is defined
    assert np.isnan(score([[[255.0, 0]]], [[[255, 255]]])["maxF_pixel"])
    np.testing.assert_allclose(PIXEL_THRESHOLDS, (0, 0.2007, 0.4055, 0.6190, 0.8473), atol=1e-4)
