"""Transforms against recorded vectors (`parity/golden/transforms*.npz`), given the recorded draws.

The vectors were recorded with OpenCV 5.0.0 and 4.14.0, which warp differently; the installed version picks its file.
"""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mtl_jax import tasks
from mtl_jax.data import augmentation, catalogue, transforms
from mtl_jax.data.augmentation.geometry import Turn

GOLDEN = Path(__file__).parent / "golden"
MAJOR = int(cv2.__version__.split(".")[0])
CASES = json.loads((GOLDEN / "transforms.json").read_text())
RECIPE = {"nyud_v1": "astmt", "nyud_head": "survey", "nyud_test": "survey", "pascal": "astmt"}
ASTMT, SURVEY = (augmentation.get_recipe(name).resampling for name in ("astmt", "survey"))
WARPS = [(0, 1.0), (0, 1.2), (0, 1.5), (13.7, 0.83), (-20, 1.25)]

# The rotated normals come from sine and cosine of a sum upstream and from a rotation matrix here: one rounding of
# float32 per step, enlarged where faint vectors of 1e-2 and below are brought to unit length (worst seen: 3e-6; float64
# normals: 0). Everything else is the same OpenCV call on the same numbers.
NORMALS_ATOL = 1e-5
WARPED_IMAGE_ATOL = (
    4e-5  # grey levels; OpenCV's cubic kernels differ in the last bit (1.5e-5 at 255) between processors
)
IMAGE_ATOL = 1e-6  # x / 255, minus mean, over std: two float32 roundings


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "transforms.npz") as file:
        arrays = dict(file)
    if MAJOR == 4:
        with np.load(GOLDEN / "transforms_opencv4.npz") as file:
            arrays |= dict(file)
    elif MAJOR != 5:
        pytest.skip(f"no transforms were recorded with OpenCV {cv2.__version__}; recorded: 4.14.0, 5.0.0")
    return arrays


def channels_last(x):
    return x if x.ndim == 3 else x[..., None]


def inputs(golden, names, normals_dtype="float32"):
    sample = {name: channels_last(golden[f"input/{name}"]) for name in names}
    if "normals" in sample:
        sample["normals"] = sample["normals"].astype(normals_dtype)
    return sample


def assert_close(name, got, want):
    atol = {"normals": NORMALS_ATOL, "image": WARPED_IMAGE_ATOL}.get(name, 0.0)
    np.testing.assert_allclose(got, channels_last(want), rtol=0, atol=atol, err_msg=name)


ELEMENTS = ["image", *tasks.TASKS]
PUBLISHED = {name: catalogue.get(name).conventions for name in ("nyud", "pascal")}


@pytest.mark.parametrize(("angle", "scale"), WARPS)
def test_scale_and_rotate(golden, angle, scale):
    key = f"scale_n_rotate/rot{angle}_sc{scale:g}"
    published = {"conventions": PUBLISHED["pascal"]}
    survey = transforms.scale_and_rotate(inputs(golden, ELEMENTS), angle, scale, SURVEY, **published)
    for name in ELEMENTS:
        assert_close(name, survey[name], golden[f"{key}/{name}"])
    astmt = transforms.scale_and_rotate(inputs(golden, ["depth"]), angle, scale, ASTMT, **published)
    assert_close("depth", astmt["depth"], golden[f"{key}/depth_v1"])
    if f"{key}/normals_f64" in golden:
        double = transforms.scale_and_rotate(inputs(golden, ["normals"], "float64"), angle, scale, ASTMT, **published)
        assert double["normals"].dtype == np.float64
        np.testing.assert_allclose(double["normals"], golden[f"{key}/normals_f64"], rtol=0, atol=1e-12)


def test_flip(golden):
    for name, x in transforms.flip(inputs(golden, ELEMENTS)).items():
        assert_close(name, x, golden[f"flip/{name}"])


@pytest.mark.parametrize("size", [(48, 64), (96, 128)])
def test_resize(golden, size):
    key = f"fixed_resize/{size[0]}x{size[1]}"
    for name, x in transforms.resize(inputs(golden, ELEMENTS), size, SURVEY, PUBLISHED["nyud"]).items():
        assert_close(name, x, golden[f"{key}/{name}"])
    linear = transforms.resize(inputs(golden, ["depth"]), size, ASTMT, PUBLISHED["nyud"])
    assert_close("depth", linear["depth"], golden[f"{key}/depth_linear"])


def test_ignore_regions(golden):
    for name, x in transforms.ignore_regions(inputs(golden, ELEMENTS), PUBLISHED["pascal"]).items():
        assert_close(name, x, golden[f"add_ignore/{name}"])
    empty = golden["add_ignore/human_parts_all_zero"]
    zeros = np.zeros((*empty.shape, 1), np.float32)
    got = transforms.ignore_regions({"human_parts": zeros}, PUBLISHED["pascal"])
    assert_close("human_parts", got["human_parts"], empty)


@pytest.mark.parametrize("case", [key for key in CASES if key.startswith("pipeline/")])
def test_pipeline(golden, case):
    row = CASES[case]
    recipe = next(recipe for prefix, recipe in RECIPE.items() if case.startswith(f"pipeline/{prefix}"))
    names = row["elements_in_order"]
    size = tuple(row["resolution"])
    sample = inputs(golden, names, row["normals_input_dtype"])
    assert {n: i for n, i in row["interpolation"].items() if n not in ("image", "depth")} == {
        n: tasks.get(n).kind.label_interpolation for n in names if n not in ("image", "depth")
    }
    published = {"conventions": PUBLISHED["pascal" if case.startswith("pipeline/pascal") else "nyud"]}
    if "flip" in row:
        drawn = (row["flip"], Turn(row["rot"], row["scale"]), None)
        got = augmentation.train_transform(sample, drawn, recipe, size, **published)
    else:
        got = augmentation.val_transform(sample, size, recipe, **published)
    assert list(got) == ["image", *(n for n in names if n != "image")]
    for name in names:
        want = golden[f"{case}/{name}"].transpose(1, 2, 0)
        if name == "image":
            assert got[name].dtype == np.float32
            before = golden[f"{case}/image_before_to_tensor"]
            inside = (np.trunc(before) >= 0) & (np.trunc(before) <= 255)  # the reference wraps around elsewhere
            np.testing.assert_allclose(got[name][inside], want[inside], rtol=0, atol=IMAGE_ATOL)
            raw = np.rint((got[name] * transforms.STD + transforms.MEAN) * 255)
            assert set(np.unique(raw[~inside])) <= {0, 255}
        else:
            assert got[name].dtype == tasks.get(name).kind.dtype
            assert_close(name, got[name], want)
