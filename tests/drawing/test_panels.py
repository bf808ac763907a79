import numpy as np
import pytest

from mtl_jax.drawing import panels
from mtl_jax.drawing.canvas import CAPTION, MARGIN
from mtl_jax.labels import colors
from mtl_jax.labels.foreground import UNLABELLED
from mtl_jax.tasks import TASKS

H, W = 12, 60


def arrays():
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((H, W, 3))
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    prediction = {
        "semseg": rng.integers(0, 40, (H, W)),
        "human_parts": rng.integers(0, 7, (H, W)),
        "sal": rng.uniform(0, 255, (H, W, 1)),
        "normals": 255 * (normal + 1) / 2,
        "edge": rng.uniform(0, 255, (H, W, 1)),
        "depth": rng.uniform(1, 9, (H, W, 1)).astype(np.float32),
    }
    label = {
        "semseg": prediction["semseg"][..., None],
        "human_parts": prediction["human_parts"][..., None],
        "sal": (prediction["sal"] > 99).astype(np.float32),
        "normals": normal,
        "edge": (prediction["edge"] > 99).astype(np.float32),
        "depth": prediction["depth"],
    }
    return prediction, label


def test_class_colors_are_those_of_voc():
    palette = colors.voc_palette()
    assert palette[[0, 1, 2, 3, 15, 20]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [128, 128, 0],
        [192, 128, 128],
        [0, 64, 128],
    ]
    assert palette[255].tolist() == [255, 255, 255]
    assert len(np.unique(palette[:40], axis=0)) == 40
    assert len(np.unique(colors.parts_palette()[:7], axis=0)) == 7


@pytest.mark.parametrize("task", TASKS)
def test_pictures_are_rgb_and_agree_for_prediction_and_label(task):
    prediction, label = arrays()
    before = prediction[task].copy(), label[task].copy()
    picture, truth = panels.colorize(task, prediction[task]), panels.colorize(task, label[task], label=True)
    for got in (picture, truth):
        assert got.shape == (H, W, 3)
        assert got.dtype == np.uint8
    if task not in ("sal", "edge"):  # their labels are binary
        assert np.abs(picture.astype(int) - truth).max() <= 1
    np.testing.assert_array_equal(prediction[task], before[0])
    np.testing.assert_array_equal(label[task], before[1])


def test_ignored_pixels():
    assert panels.colorize("semseg", np.full((1, 1, 1), 255), label=True).tolist() == [[[255] * 3]]
    assert panels.colorize("normals", np.full((1, 1, 3), 255.0), label=True).tolist() == [[[0] * 3]]
    assert panels.colorize("normals", np.zeros((1, 1, 3)), label=True).tolist() == [[[0] * 3]]
    depth = panels.colorize("depth", np.array([[[0.0], [255.0], [1.0], [2.0]]]), label=True)
    assert depth[0, :2].tolist() == [[0] * 3] * 2
    assert (depth[0, 2:].sum(axis=-1) > 0).all()
    assert not panels.colorize("depth", np.full((2, 2, 1), 255.0), label=True).any()
    for task in ("sal", "edge"):
        drawn = panels.colorize(task, np.array([[[0.0], [1.0], [255.0]]]), label=True)
        assert drawn[0].tolist() == [[0] * 3, [255] * 3, [UNLABELLED] * 3]
        assert panels.colorize(task, np.array([[[255.0]]])).tolist() == [[[255] * 3]]  # a prediction


def test_depth_range():
    values = np.array([[1.0, 2.0, 3.0]])
    fixed = panels.colorize("depth", values, low=1, high=5)
    own = panels.colorize("depth", values)
    np.testing.assert_array_equal(fixed[0, 0], own[0, 0])
    np.testing.assert_array_equal(fixed[0, 2], own[0, 1])
    np.testing.assert_array_equal(panels.colorize("depth", values, low=2, high=2.5)[0, [0, 2]], own[0, [0, 2]])


def test_panel_for_any_tasks():
    prediction, label = arrays()
    image = np.full((H, W, 3), 7, np.uint8)
    whole = panels.panel(image, prediction, label)
    margin, caption = MARGIN, CAPTION
    assert whole.dtype == np.uint8
    assert whole.shape == (margin + 2 * (caption + H + margin), margin + 7 * (W + margin), 3)
    np.testing.assert_array_equal(whole[margin + caption : margin + caption + H, margin : margin + W], image)
    first = whole[margin + caption :, 2 * margin + W :][:H, :W]
    np.testing.assert_array_equal(first, panels.colorize("semseg", prediction["semseg"]))
    alone = panels.panel(image, {"depth": prediction["depth"]})
    assert alone.shape == (margin + caption + H + margin, margin + 2 * (W + margin), 3)
    some = panels.panel(image, {t: prediction[t] for t in ("edge", "sal")}, {"sal": label["sal"], "depth": None})
    assert some.shape == (margin + 2 * (caption + H + margin), margin + 3 * (W + margin), 3)
    assert panels.panel(image, {}).shape[1] == 2 * margin + W
    lacking = panels.panel(image, prediction, {**label, "semseg": None})
    assert lacking.shape == whole.shape
    below = lacking[2 * margin + caption + H :, 2 * margin + W : 2 * (margin + W) - 1]
    assert (below == 255).all()


def test_panel_resizes_predictions_and_shares_the_depth_range():
    image = np.zeros((H, W, 3), np.uint8)
    depth = np.full((H // 2, W // 2, 1), 2.0)
    label = np.full((H, W, 1), 4.0)
    label[0] = 255
    got = panels.panel(image, {"depth": depth}, {"depth": label})
    y, x = MARGIN + CAPTION, 2 * MARGIN + W
    low, high = panels.colorize("depth", np.array([[2.0, 4.0]]))[0]
    assert (got[y : y + H, x : x + W] == low).all()
    below = got[y + H + MARGIN + CAPTION :][:H, x : x + W]
    assert (below[1:] == high).all()
    assert not below[0].any()


def test_errors_name_the_input():
    with pytest.raises(ValueError, match="one image"):
        panels.colorize("sal", np.zeros((2, 3, 3, 1)))
    with pytest.raises(ValueError, match="float64"):
        panels.panel(np.zeros((3, 3, 3)), {})
    with pytest.raises(ValueError, match="unknown task"):
        panels.colorize("flow", np.zeros((3, 3)))
