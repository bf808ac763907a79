"""Where predictions differ from labels, and by how much."""

import numpy as np
import pytest

from mtl_jax.labels import ClassIds, Foreground, LabelKind, RealValues, UnitVectors
from mtl_jax.labels.error_maps import WrongPixels
from mtl_jax.labels.keys import Bar, Swatches

DEPTH = RealValues(unit="m", zero_is_unlabelled=True)


def column(*values):
    return np.array(values)[:, None, None]


def test_wrong_classes():
    error = ClassIds().errors(np.array([[1], [2], [3], [0]]), column(1, 2, 0, 255))
    np.testing.assert_array_equal(error.values[:, 0], [0, 0, 1, np.nan])
    assert error.text == "33 % of the pixels wrong"
    assert error.paint(np.array([[0.0, 1.0]])).tolist() == [[list(WrongPixels.RIGHT), list(WrongPixels.WRONG)]]
    assert error.key() == Swatches(((WrongPixels.WRONG, "wrong class"), (WrongPixels.RIGHT, "right class")))


def test_absolute_errors_of_depth():
    error = DEPTH.errors(column(1.0, 2.5, 7.0, 3.0), column(1.5, 2.0, 0.0, 255.0))
    np.testing.assert_array_equal(error.values[:, 0], [0.5, 0.5, np.nan, np.nan])
    assert error.text == "mean error 0.50 m"
    key = error.key()
    assert isinstance(key, Bar)
    assert (key.low, key.high, key.unit, key.clipped) == (0, 0.5, "m", False)


def test_few_great_errors_do_not_hide_the_others():
    truth = np.full((10, 10, 1), 2.0)
    prediction = truth + 0.3
    prediction[0, 0] = 90
    key = DEPTH.errors(prediction, truth).key()
    assert isinstance(key, Bar)
    assert key.high == pytest.approx(0.4)  # the next round number
    assert key.clipped
    painted = DEPTH.errors(prediction, truth).paint(np.array([[0.4, 88.0]]))
    np.testing.assert_array_equal(painted[0, 0], painted[0, 1])


@pytest.mark.parametrize(("errors", "high"), [(0.0, 1e-6), (0.11, 0.2), (3.0, 4.0), (4.5, 5.0), (6.0, 10.0)])
def test_scales_end_at_round_numbers(errors, high):
    truth = np.full((4, 4, 1), 2.0)
    assert DEPTH.errors(truth + errors, truth).high == pytest.approx(high)


def test_a_prediction_without_any_label_to_compare_with():
    error = DEPTH.errors(np.ones((2, 2, 1)), np.zeros((2, 2, 1)))
    assert np.isnan(error.values).all()
    assert error.key().high == 1


def test_angles_of_normals():
    label = np.array([[[0.0, 0.0, 2.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]])
    prediction = 127.5 * (np.array([[[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]]) + 1)
    error = UnitVectors().errors(prediction, label)
    np.testing.assert_allclose(error.values, [[0, 90, np.nan]], atol=1e-3)
    assert error.text == "mean angle 45.0°"
    assert error.key().unit == "°"


def test_errors_of_probabilities():
    error = Foreground().errors(column(255.0, 51.0, 255.0), column(1.0, 1.0, 255.0))
    np.testing.assert_allclose(error.values[:, 0], [0, 0.8, np.nan], atol=1e-6)
    assert error.key().high == 1


def test_a_kind_need_not_have_a_picture_of_errors():
    assert LabelKind.errors(DEPTH, np.ones((2, 2, 1)), np.ones((2, 2, 1))) is None
