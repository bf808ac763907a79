"""Error maps of each kind of label, by hand."""

import numpy as np
import pytest

from mtl_jax import tasks
from mtl_jax.labels import IGNORE, LabelKind
from mtl_jax.reports.error_maps import ErrorMap, error_map


def label(*values, dtype=np.float32):
    return np.array([values], dtype).reshape(1, len(values), -1)


@pytest.mark.parametrize(
    ("task", "prediction", "truth", "errors"),
    [
        ("semseg", np.array([[3, 4, 7]], np.uint8), label(3, 5, IGNORE, dtype=np.uint8), [0, 1, np.nan]),
        ("sal", label(255, 51, 0, dtype=np.uint8), label(1, 1, IGNORE), [0, 0.8, np.nan]),
        ("depth", label(2.5, 1, 3), label(2, 3, IGNORE), [0.5, 2, np.nan]),
        (
            "normals",
            label((255, 127.5, 127.5), (127.5, 255, 127.5), (0, 0, 0)),
            label((1, 0, 0), (1, 0, 0), (IGNORE,) * 3),
            [0, 90, np.nan],
        ),
    ],
)
def test_errors(task, prediction, truth, errors):
    drawn = error_map(tasks.get(task).kind, prediction, truth)
    np.testing.assert_allclose(drawn.values, [errors], atol=1e-2)
    picture = drawn.picture()
    assert picture.shape == (1, 3, 3)
    assert picture.dtype == np.uint8
    assert picture[0, 1].sum() > picture[0, 0].sum()  # the greater error is brighter
    assert picture[0, 2].tolist() == [150] * 3
    assert drawn.meaning


def test_the_unit_stands_in_the_meaning():
    drawn = error_map(tasks.get("depth").kind, label(2.5, 1), label(2, 3))
    assert drawn.meaning == "absolute error, 0 (dark) to 2 m or more (bright)"


def test_labels_without_errors_to_measure():
    drawn = error_map(tasks.get("depth").kind, label(2.5), label(IGNORE))
    assert drawn.picture().tolist() == [[[150] * 3]]
    assert ErrorMap(np.zeros((1, 1)), 0.0, "").picture().shape == (1, 1, 3)


def test_a_kind_from_outside_may_have_none():
    methods = dict.fromkeys(LabelKind.__abstractmethods__, lambda self: None)
    other = type("Other", (LabelKind,), methods)()
    assert error_map(other, label(1), label(1)) is None
