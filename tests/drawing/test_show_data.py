from pathlib import Path

import cv2
import numpy as np
import pytest

from mtl_jax.data import augmentation, datasets, transforms
from mtl_jax.drawing import contact_sheet, keys, maps, panels, text
from mtl_jax.drawing.canvas import MARGIN
from mtl_jax.labels import Conventions, colors
from mtl_jax.labels.foreground import LINE
from mtl_jax.tasks import TASKS
from tests import scripts
from tests.drawing.search import shows
from tests.marks import slow

ROOT = Path(__file__).parents[2]
H, W = 40, 60
TOP = MARGIN + 2 * text.LINE  # of the first row of pictures


def sample():
    """A grey image whose left half has labels of 1, 1 m or (0, 0, 1), and whose right half is ignored."""
    labels = {
        "semseg": np.full((H, W, 1), 255, np.uint8),
        "human_parts": np.full((H, W, 1), 255, np.uint8),
        "sal": np.full((H, W, 1), 255, np.float32),
        "normals": np.full((H, W, 3), 255, np.float32),
        "edge": np.full((H, W, 1), 255, np.float32),
        "depth": np.full((H, W, 1), 255, np.float32),
    }
    for label in labels.values():
        label[:, : W // 2] = 1
    labels["normals"][:, : W // 2] = (0, 0, 1)
    return {"id": "grey", "image": np.full((H, W, 3), 100, np.uint8), **labels}


def overlay(task, image, label, limits=(None, None)):
    height, width = image.shape[:2]
    return maps.draw(maps.layer(task, label, height, width, is_label=True), image, "overlay", limits)


@pytest.mark.parametrize("task", TASKS)
def test_a_label_is_drawn_and_the_ignored_rest_is_hatched(task):
    given = sample()
    before = given[task].copy()
    drawn = overlay(task, given["image"], given[task])
    assert drawn.shape == (H, W, 3)
    assert drawn.dtype == np.uint8
    stripes = maps.hatching(H, W)
    np.testing.assert_array_equal(drawn[:, W // 2 :], stripes[:, W // 2 :])
    inside = drawn[:, : W // 2 - 1]  # a boundary may follow
    assert (inside == inside[0, 0]).all()
    assert not np.array_equal(inside[0, 0], given["image"][0, 0])
    np.testing.assert_array_equal(given[task], before)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("label", ["missing", "ignored"])
def test_unlabelled_cells(task, label):
    given = sample() | {"image": np.full((120, 160, 3), 100, np.uint8)}
    given[task] = None if label == "missing" else np.full_like(given[task], 255)
    got = contact_sheet.sheet([given], (task,), height=120)
    drawn = got[TOP : TOP + 120, MARGIN + contact_sheet.NARROWEST + MARGIN :][:, :160]
    np.testing.assert_array_equal(drawn[:40], maps.hatching(120, 160)[:40])
    assert shows(drawn, "unlabelled")


def test_colors_of_overlays():
    image = np.full((H, W, 3), 100, np.uint8)
    label = np.zeros((H, W, 1), np.uint8)
    label[:, W // 2 :] = 15
    drawn = overlay("semseg", image, label)
    np.testing.assert_array_equal(drawn[0, -1], np.round(0.4 * 100 + 0.6 * colors.class_palette()[15].astype(float)))
    np.testing.assert_array_equal(drawn[0, W // 2 - 1], colors.BOUNDARY)
    edge = np.zeros((4 * H, 4 * W, 1), np.float32)
    edge[:, 81] = 1  # one pixel wide, and in a column that nearest neighbours leave out
    drawn = overlay("edge", image, edge)
    np.testing.assert_array_equal(drawn[:, 20], np.broadcast_to(LINE, (H, 3)))
    assert (drawn[:, :20] == drawn[0, 0]).all()
    depth = np.linspace(1, 3, H * W, dtype=np.float32).reshape(H, W, 1)
    expected = panels.colorize("depth", depth, label=True)
    np.testing.assert_array_equal(overlay("depth", image, depth), expected)
    depth[0], expected[0] = 0, maps.hatching(H, W)[0]  # not measured
    np.testing.assert_array_equal(overlay("depth", image, depth)[0], expected[0])


def test_captions():
    given = sample()
    assert contact_sheet.describe("semseg", given["semseg"]) == ("semseg: 50 % valid", "class 1")
    assert contact_sheet.describe("depth", given["depth"])[1] == "1.00 to 1.00 m"
    assert contact_sheet.describe("normals", given["normals"])[1] == "mean x +0.00, y +0.00, z +1.00"
    assert contact_sheet.describe("sal", np.arange(4.0).reshape(2, 2, 1) == 3) == ("sal: 100 % valid", "25 % positive")
    assert contact_sheet.describe("edge", None) == ("edge: no label", "")
    assert contact_sheet.describe("edge", np.full((1, 1, 1), 255.0))[0] == "edge: every pixel ignored"
    many = np.arange(12).reshape(3, 4, 1)
    assert contact_sheet.describe("semseg", many)[1] == "classes 0 1 2 3 4 5 6 7 8 + 3 more"
    many[0] = 7
    assert contact_sheet.describe("semseg", many, [f"n{i}" for i in range(8)])[1] == "n7, n4 + 6 more"
    valid = np.full((50, 50, 1), 255)
    valid[0, 0] = 0
    assert contact_sheet.describe("semseg", valid)[0] == "semseg: 0.1 % valid"  # 0.04 % is not nothing


def test_a_sheet_has_a_row_a_sample_and_a_column_a_task():
    first = sample()
    tall = {"id": "tall", "image": np.full((90, 45, 3), 7, np.uint8), "depth": np.full((90, 45, 1), 2.0)}
    got = contact_sheet.sheet([first, tall], ("depth", "semseg"), height=H, names={"semseg": ("a", "b")})
    column = contact_sheet.NARROWEST + MARGIN
    assert got.dtype == np.uint8
    assert got.shape[1] == MARGIN + 3 * column
    np.testing.assert_array_equal(got[TOP : TOP + H, MARGIN : MARGIN + W], first["image"])
    limits = {"semseg": (None, None), "depth": (1, 2)}
    for i, (task, limit) in enumerate(limits.items(), start=1):
        x = MARGIN + i * column
        expected = overlay(task, first["image"], first[task], limit)
        np.testing.assert_array_equal(got[TOP : TOP + H, x : x + W], expected)
    below = TOP + H + MARGIN + 2 * text.LINE
    assert (got[below : below + H, MARGIN : MARGIN + 20] == 7).all()
    assert (got[below : below + H, MARGIN + 21 : column] == 255).all()
    x = MARGIN + column
    np.testing.assert_array_equal(got[below : below + H, x : x + 20], maps.hatching(H, 20))
    legend = got[below + H :]
    assert (legend == colors.class_palette()[1]).all(axis=-1).sum() == (keys.SWATCH - 2) ** 2
    for words in ("b", "2 m", "ignored or unlabelled"):
        assert shows(legend, words)


def test_the_depths_of_a_sheet_have_one_scale():
    near = {"id": "near", "image": np.zeros((H, W, 3), np.uint8), "depth": np.full((H, W, 1), 1.0)}
    far = near | {"id": "far", "depth": np.full((H, W, 1), 3.0)}
    got = contact_sheet.sheet([near, far], ("depth",), height=H)
    x = MARGIN + contact_sheet.NARROWEST + MARGIN
    low, high = panels.colorize("depth", np.array([[1.0, 3.0]]))[0]
    assert (got[TOP, x] == low).all()
    assert (got[TOP + H + MARGIN + 2 * text.LINE, x] == high).all()


def test_wide_pictures_are_lower_and_wrong_input_is_named():
    wide = {"id": "wide", "image": np.full((10, 100, 3), 7, np.uint8)}
    assert contact_sheet.sheet([wide], (), height=200).shape[1] == 300 + 2 * MARGIN
    with pytest.raises(ValueError, match="at least one sample"):
        contact_sheet.sheet([], ("depth",))
    with pytest.raises(ValueError, match="unknown task 'flow'"):
        contact_sheet.sheet([wide], ("flow",))
    with pytest.raises(ValueError, match="'wide' must be RGB uint8"):
        contact_sheet.sheet([wide | {"image": np.zeros((3, 3, 3))}], ())


def test_positions():
    assert contact_sheet.spread(100, 5) == [0, 25, 50, 74, 99]
    assert contact_sheet.spread(3, 5) == [0, 1, 2]
    assert contact_sheet.spread(10, 1) == [0]
    assert contact_sheet.spread(10, 4, start=8) == [8, 9]
    with pytest.raises(ValueError, match="images are 0 to 9"):
        contact_sheet.spread(10, 4, start=10)
    with pytest.raises(ValueError, match="count is 0"):
        contact_sheet.spread(10, 0)
    source = [{"id": name.encode()} for name in "abcd"]
    assert contact_sheet.find(source, ["c", "a"]) == [2, 0]
    with pytest.raises(ValueError, match="no image has the id 'x'; the 4 ids are a, b, c, d"):
        contact_sheet.find(source, ["c", "x"])


def test_augmented_samples_are_those_of_training():
    rng = np.random.default_rng(0)
    given = sample() | {"image": rng.integers(0, 256, (H, W, 3), np.uint8)}
    del given["edge"]
    plain = contact_sheet.augmented(given, rng, augmentation.get_recipe("none"), (H, W), "zero", Conventions())
    np.testing.assert_array_equal(plain["image"], given["image"])
    assert "edge" not in plain
    recipe = augmentation.get_recipe("astmt")
    seen = contact_sheet.augmented(given, np.random.default_rng(3), recipe, (64, 96), "ignore", Conventions())
    drawn = augmentation.draw(recipe, np.random.default_rng(3))
    expected = augmentation.train_transform(given, drawn, recipe, (64, 96), "ignore")
    np.testing.assert_array_equal(seen["semseg"], expected["semseg"])
    np.testing.assert_array_equal(transforms.normalise_image(seen["image"]), expected["image"])
    flipped, turn, _ = drawn
    assert f"scale {turn.scale:.2f}" in seen["note"]
    assert ("flipped" in seen["note"]) == flipped


def run(*args):
    return scripts.run("show_data", *args)


@pytest.fixture(scope="module")
def options(data_dir):
    datasets.prepare("rendered_scenes/pascal_tiny", data_dir)
    builder = "--config.data.builder=rendered_scenes/pascal_tiny"
    return [f"--config={ROOT}/configs/pascal_mtinet.py", builder, f"--config.data.data_dir={data_dir}"]


def test_the_script_draws_a_split(options, tmp_path):
    out = tmp_path / "new" / "sheet.png"
    process = run(*options, "--split=val", "--tasks=semseg,edge", "--count=3", f"--out={out}")
    assert process.returncode == 0, process.stderr
    assert "3 of 5 images of rendered_scenes/pascal_tiny, split val" in process.stdout
    picture = cv2.imread(str(out))
    assert picture.shape[1] == MARGIN + 3 * (240 + MARGIN)
    assert picture.shape[0] > MARGIN + 3 * (2 * text.LINE + 240 + MARGIN)
    assert picture.std() > 10
    args = [
        "--augment",
        "--style=map",
        "--tasks=all",
        "--ids=train_00003",
        "--height=100",
        "--config.data.image_size=(64, 64)",
    ]
    process = run(*options, *args, f"--out={out}")
    assert process.returncode == 0, process.stderr
    assert cv2.imread(str(out)).shape[1] == MARGIN + 6 * (contact_sheet.NARROWEST + MARGIN)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--split=test"], "has no split 'test'; it has train, val"),
        (["--ids=train_00003,nobody"], "no image has the id 'nobody'"),
        slow(["--tasks=flow"], "unknown task 'flow'"),
        slow(["--tasks=depth"], "has no labels for depth"),
        slow(["--start=12"], "start is 12, but the images are 0 to 11"),
        slow(["--out={tmp}"], "has no suffix of an image file"),
        (["--out={tmp}/sheet.txt"], "has no suffix of an image file"),
        (["--out={tmp}/file/sheet.png"], "file"),
    ],
)
def test_the_script_says_what_is_wrong(options, tmp_path, args, message):
    (tmp_path / "file").write_text("")
    process = run(*options, f"--out={tmp_path / 'sheet.png'}", *(arg.format(tmp=tmp_path) for arg in args))
    assert process.returncode == 1, process.stderr
    assert message in process.stderr
    assert "Traceback" not in process.stderr
    assert not (tmp_path / "sheet.png").exists()
