import numpy as np
import pytest

from mtl_jax.metrics import Accumulator, Depth


def score(prediction, label, protocol="image"):
    metric = Depth(protocol)
    accumulator = Accumulator(metric)
    accumulator.update(metric.update(np.array(prediction, float)[..., None], np.array(label, float)[..., None]))
    return accumulator.compute()


def test_by_hand_in_both_protocols():
    prediction, label = [[[2, 3, 9]], [[1, 9, 9]], [[4, 9, 9]]], [[[1, 1, 0]], [[4, 255, 0]], [[4, 255, 255]]]
    image, pixel = score(prediction, label), score(prediction, label, "pixel")
    assert image["rmse"] == pytest.approx((np.sqrt(5 / 2) + 3 + 0) / 3)
    assert pixel["rmse"] == pytest.approx(np.sqrt((1 + 4 + 9) / 4))
    logs = np.log(2) ** 2, np.log(3) ** 2, np.log(4) ** 2
    assert image["log_rmse"] == pytest.approx(np.sqrt((logs[0] + logs[1]) / 2))  # the median: 0, this, log 4
    assert pixel["log_rmse"] == pytest.approx(np.sqrt(sum(logs) / 4))
    assert image["abs_rel"] == pytest.approx((3 / 2 + 3 / 4 + 0) / 3)
    assert pixel["abs_rel"] == pytest.approx((1 + 2 + 3 / 4 + 0) / 4)
    assert image["sq_rel"] == pytest.approx((5 / 2 + 9 / 4 + 0) / 3)
    assert pixel["sq_rel"] == pytest.approx((1 + 4 + 9 / 4 + 0) / 4)


def test_delta_is_the_share_within_powers_of_a_quarter():
    result = score([[[1.2, 1.5, 1.9, 2.5]]], [[[1, 1, 1, 1]]])
    assert [result[f"delta{k}"] for k in (1, 2, 3)] == [1 / 4, 2 / 4, 3 / 4]
    assert score([[[1, 1, 1, 1]]], [[[1.2, 1.5, 1.9, 2.5]]])["delta1"] == 1 / 4


def test_predictions_are_raised_to_a_positive_floor():
    result = score([[[-3.0]]], [[[1.0]]])
    assert result["rmse"] == pytest.approx(1)
    assert result["log_rmse"] == pytest.approx(-np.log(1e-9))


def test_images_without_a_valid_pixel_are_left_out():
    assert score([[[2.0]], [[5.0]]], [[[1.0]], [[255.0]]])["rmse"] == 1


def test_unknown_protocol():
    with pytest.raises(ValueError, match="image, pixel"):
        Depth("pixels")
