import numpy as np
import pytest

from mtl_jax.metrics import Accumulator, Segmentation


def score(metric, prediction, label):
    accumulator = Accumulator(metric)
    accumulator.update(metric.update(np.array(prediction), np.array(label)[..., None]))
    return accumulator.compute()


def test_by_hand():
    # Class 0: TP 1, FP 1; class 1: TP 1, FN 1, FP 1; class 2: FN 1; class 3 never occurs; one pixel is ignored.
    result = score(Segmentation(4), [[[0, 0, 1], [1, 2, 0]]], [[[0, 1, 1], [2, 255, 255]]])
    assert result["per_class_IoU"] == [1 / 2, 1 / 3, 0, 0]
    assert result["mIoU"] == pytest.approx(5 / 24, abs=1e-15)
    assert result["mIoU_present"] == pytest.approx(5 / 18, abs=1e-15)
    assert result["pixel_accuracy"] == 1 / 2
    assert result["mean_accuracy"] == pytest.approx((1 + 1 / 2 + 0) / 3, abs=1e-15)


def test_a_predicted_class_out_of_range_is_a_miss():
    result = score(Segmentation(2), [[[0, 7, 255]]], [[[0, 0, 1]]])
    assert result["per_class_IoU"] == [1 / 2, 0]
    assert result["pixel_accuracy"] == 1 / 3


@pytest.mark.parametrize("value", [0, 255])
def test_skip_empty_leaves_out_images_without_a_person(value):
    label = np.array([[[0, 1, 2, 255]], [[value] * 4]])
    prediction = np.array([[[0, 1, 1, 1]], [[1, 1, 2, 2]]])
    alone = score(Segmentation(3), prediction[:1], label[:1])
    assert score(Segmentation(3, skip_empty=True), prediction, label) == alone
    streaming = score(Segmentation(3), prediction, label)
    assert (streaming == alone) == (value == 255)  # the streaming scores mask 255 only: false positives count


def test_a_label_of_background_and_ignored_pixels_is_not_empty():
    label, prediction = [[[0, 0, 255]]], [[[0, 1, 1]]]
    assert score(Segmentation(2, skip_empty=True), prediction, label) == score(Segmentation(2), prediction, label)
