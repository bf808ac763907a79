"""Weights of classes by their rules."""

import numpy as np
import pytest

from mtl_jax.losses import MEASURED, Frequencies

# Three classes and one that does not occur, in images of 50 labelled pixels.
FREQUENCIES = Frequencies(pixels=(120, 60, 20, 0), images=(4, 3, 1, 0), pixels_of_images=(200, 150, 50, 0))


def effective(images):
    return (1 - 0.999) / (1 - 0.999**images)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("inverse_frequency", [200 / (4 * 120), 200 / (4 * 60), 200 / (4 * 20)]),
        # The shares are 0.6, 0.4 and 0.4.
        ("median_frequency", [0.4 / 0.6, 1, 1]),
        ("measured", [0.4 / 0.6, 1, 1]),
        ("enet", [1 / np.log(1.02 + 0.6), 1 / np.log(1.02 + 0.3), 1 / np.log(1.02 + 0.1)]),
        ("effective_number", np.array([effective(4), effective(3), 1]) * 3 / (effective(4) + effective(3) + 1)),
    ],
)
def test_rules(rule, expected):
    np.testing.assert_allclose(MEASURED["class_weights"][rule](FREQUENCIES), [*expected, 0], rtol=1e-12)


@pytest.mark.parametrize("rule", MEASURED["class_weights"])
def test_nothing_counted(rule):
    assert MEASURED["class_weights"][rule](Frequencies((0, 0), (0, 0), (0, 0))) == (0, 0)


def test_positive_weight():
    assert MEASURED["positive_weight"]["measured"](Frequencies((90, 10), (4, 3), (100, 80))) == (0.9,)
