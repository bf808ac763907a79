import numpy as np
import pytest

from mtl_jax.metrics import Accumulator, Edge


def score(prediction, label):
    accumulator = Accumulator(Edge())
    accumulator.update(Edge().update(np.array(prediction)[..., None], np.array(label)[..., None]))
    return accumulator.compute()["loss"]


def test_by_hand_with_one_sigmoid():
    loss = score([[[51.0, 204.0]], [[51.0, 51.0]]], [[[1.0, 0.0]], [[0.0, 0.0]]])
    assert loss == pytest.approx(-(0.95 * np.log(0.2) + 0.05 * np.log(0.2) + 2 * 0.05 * np.log(0.8)) / 4)


def test_saturated_maps_stay_finite():
    eps = np.finfo(np.float32).eps
    assert score([[[0.0, 255.0]]], [[[1.0, 0.0]]]) == pytest.approx(-np.log(eps) / 2)
    assert score(np.array([[[0, 255]]], np.uint8), [[[0.0, 1.0]]]) == pytest.approx(eps / 2)


def test_pixels_labelled_255_do_not_count():
    loss = score([[[51.0, 204.0]], [[51.0, 51.0]]], [[[1.0, 255.0]], [[0.0, 255.0]]])
    assert loss == pytest.approx(-(0.95 * np.log(0.2) + 0.05 * np.log(0.8)) / 2)
