from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from mtl_jax import tasks
from mtl_jax.drawing import maps, panels, text
from mtl_jax.drawing.canvas import MARGIN
from mtl_jax.labels import Conventions, LabelKind, RealValues, colors
from mtl_jax.labels.error_maps import WrongPixels
from mtl_jax.tasks import TASKS, Task
from tests.drawing.search import shows

H, W = 240, 320  # drawn at this size
TOP, PITCH = MARGIN + text.LINE, W + MARGIN  # of the first row of pictures; distance of columns
IMAGE = np.full((H, W, 3), 90, np.uint8)


def arrays():
    """Predictions, and labels that agree with them."""
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


def picture(panel, column, row_top=TOP):
    """The picture in a column, counted from 0."""
    return panel[row_top : row_top + H, MARGIN + column * PITCH :][:, :W]


@pytest.mark.parametrize("task", TASKS)
def test_pictures_are_rgb_and_agree_for_prediction_and_label(task):
    prediction, label = arrays()
    before = prediction[task].copy(), label[task].copy()
    drawn, truth = panels.colorize(task, prediction[task]), panels.colorize(task, label[task], label=True)
    for got in (drawn, truth):
        assert got.shape == (H, W, 3)
        assert got.dtype == np.uint8
    if task not in ("sal", "edge"):  # their labels are binary
        assert np.abs(drawn.astype(int) - truth).max() <= 1
    np.testing.assert_array_equal(prediction[task], before[0])
    np.testing.assert_array_equal(label[task], before[1])


@pytest.mark.parametrize("task", TASKS)
def test_pixels_without_a_label_are_hatched(task):
    _, label = arrays()
    label[task][:, : W // 2] = 255
    drawn = panels.colorize(task, label[task], label=True)
    stripes = maps.hatching(H, W)
    np.testing.assert_array_equal(drawn[:, : W // 2], stripes[:, : W // 2])
    assert not np.array_equal(drawn[:, W // 2 :], stripes[:, W // 2 :])


def test_zeros_are_unlabelled_only_where_the_kind_says_so():
    stripes = maps.hatching(1, 2)
    np.testing.assert_array_equal(panels.colorize("depth", np.zeros((1, 2, 1)), label=True), stripes)
    np.testing.assert_array_equal(panels.colorize("normals", np.zeros((1, 2, 3)), label=True), stripes)
    assert panels.colorize("sal", np.zeros((1, 2, 1)), label=True).tolist() == [[[0] * 3] * 2]
    assert panels.colorize("depth", np.zeros((1, 2, 1))).tolist() != stripes.tolist()  # a prediction
    bad = panels.colorize("depth", np.array([[[np.nan], [1.0]]]), low=0, high=2)
    assert bad[0, 0].tolist() == stripes[0, 0].tolist()


def test_depth_range():
    values = np.array([[1.0, 2.0, 3.0]])
    fixed = panels.colorize("depth", values, low=1, high=5)
    own = panels.colorize("depth", values)
    np.testing.assert_array_equal(fixed[0, 0], own[0, 0])
    np.testing.assert_array_equal(fixed[0, 2], own[0, 1])
    np.testing.assert_array_equal(panels.colorize("depth", values, low=2, high=2.5)[0, [0, 2]], own[0, [0, 2]])


def test_a_task_takes_a_row_and_its_label_stands_beside_its_prediction():
    depth, label = np.full((H // 2, W // 2, 1), 2.0), np.full((H, W, 1), 4.0)
    label[:20] = 255
    got = panels.panel(IMAGE, {"depth": depth}, {"depth": label, "semseg": np.zeros((H, W, 1))}, caption="room 7")
    assert got.shape[1] == MARGIN + 3 * PITCH
    np.testing.assert_array_equal(picture(got, 0), IMAGE)
    low, high = panels.colorize("depth", np.array([[2.0, 4.0]]))[0]
    assert (picture(got, 1) == low).all()  # they share one range of colours
    assert (picture(got, 2)[20:] == high).all()
    np.testing.assert_array_equal(picture(got, 2)[:20], maps.hatching(H, W)[:20])
    for words in ("room 7", "depth: prediction", "depth: ground truth", "distance from the camera", "4 m", "no label"):
        assert shows(got, words)


def test_many_tasks_take_columns_with_their_labels_below():
    prediction, label = arrays()
    got = panels.panel(IMAGE, prediction, label)
    middle, column = got.shape[0] // 2, got.shape[1] // 4
    for i, task in enumerate(("image", *(f"{task}: prediction" for task in TASKS))):  # four in a row
        place = got[:middle] if i < 4 else got[middle:]
        assert shows(place[:, i % 4 * column : (i % 4 + 1) * column + MARGIN], task)
    lacking = panels.panel(IMAGE, prediction, {**label, "semseg": None})
    assert not shows(lacking, "semseg: ground truth")
    assert shows(lacking, "human_parts: ground truth")


@pytest.mark.parametrize("size", [(30, 40), (2000, 1500), (150, 3000), (3000, 150)])
@pytest.mark.parametrize(("count", "labelled"), [(0, False), (1, True), (6, False), (6, True)])
def test_the_size_of_a_panel_does_not_depend_on_the_image(size, count, labelled):
    small = max(1, size[0] // 20), max(1, size[1] // 20)
    predictions = {task: np.zeros((*small, 3) if task == "normals" else small) for task in list(TASKS)[:count]}
    labels = {task: np.ones((*small, 3) if task == "normals" else (*small, 1)) for task in predictions if labelled}
    got = panels.panel(np.zeros((*size, 3), np.uint8), predictions, labels, errors=labelled)
    assert max(got.shape[:2]) <= panels.LONG_SIDE
    assert shows(got[:50], "image")


@pytest.mark.parametrize("long_side", [700, 1600, 2500])
def test_the_long_side_is_an_option(long_side):
    got = panels.panel(cv2.resize(IMAGE, (1280, 960)), {"semseg": np.zeros((9, 12), int)}, long_side=long_side)
    assert 0.9 * long_side < max(got.shape[:2]) <= long_side


def test_small_images_are_enlarged_and_large_ones_averaged():
    image = np.zeros((30, 40, 3), np.uint8)
    assert picture(panels.panel(image, {}), 0).shape == (H, W, 3)
    fine = np.zeros((4 * H, 4 * W, 3), np.uint8)
    fine[:, ::2] = 200
    assert (maps.thumbnail(fine, H, W) == 100).all()


def test_no_class_and_no_depth_is_invented_where_maps_shrink():
    ids = np.random.default_rng(0).choice([3, 9], (1000, 1000))
    semseg, depth = tasks.get("semseg").kind, tasks.get("depth").kind
    assert set(np.unique(semseg.fit(ids, 77, 33, is_label=False))) == {3, 9}
    assert set(np.unique(semseg.fit(ids[..., None], 77, 33, is_label=True))) == {3, 9}
    assert set(np.unique(depth.fit(ids[..., None], 77, 33, is_label=True))) == {3, 9}
    assert len(np.unique(depth.fit(ids[..., None], 77, 33, is_label=False))) > 2  # predictions are averaged


def test_lines_stay_lines_where_labels_shrink():
    edge = np.zeros((400, 400, 1), np.float32)
    edge[:, 201] = 1
    small = tasks.get("edge").kind.fit(edge, 100, 100, is_label=True)
    assert small[:, 50].all()
    assert small.sum() == 100


def test_classes_have_names_the_most_frequent_first():
    ids = np.zeros((H, W), int)
    ids[:, 200:], ids[:20, :20], ids[-1, -1] = 7, 2, 12
    got = panels.panel(IMAGE, {"semseg": ids}, names={"semseg": tuple(f"name{i}" for i in range(8))})
    for words in ("name0", "name7", "name2", "class 12"):
        assert shows(got, words)
    assert not shows(got, "name1")
    key = maps.key([maps.layer("semseg", ids, H, W, is_label=False)], "map", (), Conventions(), (None, None))
    assert [name for _, name in key.entries] == ["class 0", "class 7", "class 2", "class 12"]
    np.testing.assert_array_equal(picture(got, 1)[0, -1], colors.class_palette()[7])


def test_overlays_show_the_image():
    ids = np.zeros((H, W), int)
    ids[:, W // 2 :] = 1
    got = picture(panels.panel(IMAGE, {"semseg": ids}, style="overlay"), 1)
    palette = colors.class_palette().astype(float)
    np.testing.assert_array_equal(got[0, 0], np.round(0.4 * 90 + 0.6 * palette[0]))
    np.testing.assert_array_equal(got[0, -1], np.round(0.4 * 90 + 0.6 * palette[1]))
    assert got[0, W // 2 - 1].tolist() == [255, 255, 255]
    probable = np.full((H, W, 1), 255.0)
    probable[:, : W // 2] = 0
    got = picture(panels.panel(IMAGE, {"sal": probable}, style="overlay"), 1)
    assert got[0, 0].tolist() == [36] * 3  # darkened
    assert got[0, -1, 0] > got[0, -1, 2]


def test_errors():
    ids, label = np.zeros((H, W), int), np.zeros((H, W, 1), int)
    ids[:60], label[-20:] = 1, 255
    depth, truth = np.full((H, W, 1), 2.5), np.full((H, W, 1), 2.0)
    got = panels.panel(IMAGE, {"semseg": ids, "depth": depth}, {"semseg": label, "depth": truth}, errors=True)
    assert shows(got, "semseg: 27 % of the pixels wrong")
    assert shows(got, "depth: mean error 0.50 m")
    assert shows(got, "wrong class")
    single = panels.panel(IMAGE, {"semseg": ids}, {"semseg": label}, errors=True)
    drawn = picture(single, 3)
    assert (drawn[:60] == WrongPixels.WRONG).all()
    assert (drawn[60:-20] == WrongPixels.RIGHT).all()
    np.testing.assert_array_equal(drawn[-20:], maps.hatching(H, W)[-20:])
    assert not shows(panels.panel(IMAGE, {"semseg": ids}, errors=True), "wrong class")  # there is no label
    half = panels.panel(IMAGE, {"semseg": ids[::2, ::2]}, {"semseg": label}, errors=True)
    np.testing.assert_array_equal(picture(half, 3), drawn)


@dataclass(frozen=True)
class Plain(RealValues):
    """A kind of label that says nothing about how it is drawn."""

    key = LabelKind.key
    errors = LabelKind.errors
    value_range = LabelKind.value_range
    fit = LabelKind.fit


def test_a_kind_that_says_little_is_drawn(monkeypatch):
    row = tasks.get("depth")
    plain = Task("plain", Plain(), row.loss, 1.0, row.metric, row.criterion)
    monkeypatch.setitem(TASKS, "plain", plain)
    ramp = np.linspace(0, 1, H * W).reshape(H, W, 1)
    got = panels.panel(IMAGE, {"plain": ramp}, {"plain": ramp}, errors=True, style="overlay")
    np.testing.assert_array_equal(picture(got, 1), panels.colorize("depth", ramp))
    assert shows(got, "value in the unit of the labels")


def test_constant_maps_have_a_scale():
    got = panels.panel(IMAGE, {"depth": np.full((H, W, 1), 3.0)})
    assert shows(got, "4 m")
    blank = panels.panel(IMAGE, {"depth": np.full((H, W, 1), np.nan)})
    np.testing.assert_array_equal(picture(blank, 1), maps.hatching(H, W))
    assert shows(blank, "no value")


def test_panels_are_pictures_that_files_hold(tmp_path):
    prediction, label = arrays()
    got = panels.panel(IMAGE, prediction, label)
    assert cv2.imwrite(str(tmp_path / "panel.png"), got)


def test_errors_name_the_input():
    with pytest.raises(ValueError, match="one image"):
        panels.colorize("sal", np.zeros((2, 3, 3, 1)))
    with pytest.raises(ValueError, match="the image must be RGB uint8"):
        panels.panel(np.zeros((3, 3, 3)), {})
    with pytest.raises(ValueError, match="unknown task"):
        panels.colorize("flow", np.zeros((3, 3)))
    with pytest.raises(ValueError, match="a panel of 6 tasks with 2 pictures each does not fit into long_side=300"):
        panels.panel(IMAGE, *arrays(), long_side=300)
