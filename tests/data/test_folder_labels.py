"""Label files of a folder: what their values mean, and files that must not be taken for labels."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from mtl_jax import experiment
from mtl_jax.config import Config, Data
from mtl_jax.data import catalogue, datasets
from mtl_jax.data.loader import train_batches
from mtl_jax.labels import axes
from mtl_jax.tasks import IGNORE
from tests.data.own_folder import H, W, build, encoded, write

OWN = catalogue.FAMILIES["folder"]
SEMSEG = '[tasks.semseg]\nclasses = ["road", "car"]\n'
IDS = np.random.default_rng(0).integers(0, 2, (H, W), np.uint8)


def label(tmp_path, task, toml, content, suffix="png"):
    """The first label of a data set whose files have this content."""
    root = write(tmp_path / "raw", toml, {f"{task}.{suffix}": content})
    source = datasets.open_split(build(root, tmp_path / "tfds"), "train")
    return source.sample(0, (task,), OWN)[task]


def png(value, *flags):
    return cv2.imencode(".png", value, flags)[1].tobytes()


def with_palette(indices):
    image = Image.fromarray(indices, "P")
    image.putpalette([0, 0, 0, 128, 64, 128, 0, 0, 142])
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


# Class ids

GREY = np.repeat(IDS[..., None], 3, axis=2)
OPAQUE = np.full((H, W, 1), 255, np.uint8)
COLORS = np.array([[128, 64, 128], [0, 0, 142], [0, 0, 0]], np.uint8)
IN_COLOUR = "colors = [[128, 64, 128], [0, 0, 142]]\nignore = [[0, 0, 0]]\n"


@pytest.mark.parametrize(
    "content",
    [
        png(IDS),
        png(IDS.astype(np.uint16)),
        png(GREY),
        png(np.concatenate([GREY, OPAQUE], axis=2)),
        with_palette(IDS),
        encoded(IDS, ".npy"),
    ],
    ids=["grey", "16 bits", "RGB", "RGBA", "palette", "npy"],
)
def test_class_ids_in_any_kind_of_file(tmp_path, content):
    suffix = "npy" if content.startswith(b"\x93NUMPY") else "png"
    toml = SEMSEG + f'suffix = ".{suffix}"\n'
    np.testing.assert_array_equal(label(tmp_path, "semseg", toml, content, suffix)[..., 0], IDS)


@pytest.mark.parametrize("palette", [False, True])
def test_classes_in_colour(tmp_path, palette):
    ids = np.random.default_rng(1).integers(0, 3, (H, W), np.uint8)
    content = with_palette((ids + 1) % 3) if palette else png(COLORS[ids][..., ::-1])
    got = label(tmp_path, "semseg", SEMSEG + IN_COLOUR, content)[..., 0]
    np.testing.assert_array_equal(got, np.where(ids == 2, IGNORE, ids))


HALF_TRANSPARENT = np.concatenate([GREY, OPAQUE // 2], axis=2)
JPEG = cv2.imencode(".jpg", IDS * 255)[1].tobytes()


@pytest.mark.parametrize(
    ("toml", "content", "message"),
    [
        (SEMSEG, png(COLORS[IDS]), r"it is in colour \(2 colours, for example .*\), .*colors = \[\[red, green, blue\]"),
        (SEMSEG, png(HALF_TRANSPARENT), "2240 of its pixels are transparent"),
        (SEMSEG, JPEG, "it is a JPEG, whose compression changes values"),
        (SEMSEG + IN_COLOUR, png(COLORS[IDS] + 1), r"class ids \[\d+, \d+, \d+\].*, expected the colours of 2 classes"),
        (SEMSEG + IN_COLOUR, png(COLORS[IDS].astype(np.uint16)), "it has 16 bits a channel, expected 8"),
        (SEMSEG + IN_COLOUR, JPEG, "it is a JPEG, whose compression changes values"),
    ],
    ids=["colours", "transparent", "JPEG", "other colours", "16 bits", "JPEG with colours"],
)
def test_files_without_class_ids(tmp_path, toml, content, message):
    with pytest.raises(ValueError, match=f"semseg/a.png: {message}"):
        label(tmp_path, "semseg", toml, content)


# Masks

MASK = np.random.default_rng(2).integers(0, 3, (H, W), np.uint8)  # background, foreground, ignored


@pytest.mark.parametrize("task", ["sal", "edge"])
@pytest.mark.parametrize(
    ("values", "toml"),
    [
        ((0, 1, 255), "foreground = [1]\nignore = [255]"),
        ((0, 255, 128), "foreground = [255]\nignore = [128]"),
        ((0, 100, 100), "foreground = [100]"),
        ((3, 7, 9), "foreground = [7]\nbackground = [3]\nignore = [9]"),
        ((0, 255, 128), 'foreground = "levels"\nignore = [128]'),
        ((0, 255, 255), ""),
    ],
)
def test_meaning_of_masks(tmp_path, task, values, toml):
    got = label(tmp_path, task, f"[tasks.{task}]\n{toml}\n", png(np.array(values, np.uint8)[MASK]))[..., 0]
    third = IGNORE if "ignore" in toml else 1
    np.testing.assert_array_equal(got, np.array([0, 1, third])[MASK])


@pytest.mark.parametrize("values", [(0, 1, 255), (0, 1, 1), (0, 100, 100), (0, 127, 127), (0, 255, 128), (0, 1, 2)])
def test_masks_without_a_clear_meaning(tmp_path, values):
    listed = ", ".join(map(str, sorted(set(values))))
    with pytest.raises(ValueError, match=rf"sal/a.png: its values are {listed}, and it is not clear"):
        label(tmp_path, "sal", "[tasks.sal]\n", png(np.array(values, np.uint8)[MASK]))


def test_masks_in_arrays(tmp_path):
    toml = '[tasks.sal]\nsuffix = ".npy"\n'
    for number, (value, more) in enumerate(
        [(MASK == 1, ""), ((MASK == 1) * 0.7, ""), (MASK, "foreground = [1]\nignore = [2]\n")]
    ):
        got = label(tmp_path / str(number), "sal", toml + more, encoded(value, ".npy"), "npy")[..., 0]
        np.testing.assert_array_equal(got, np.array([0, 1, IGNORE if more else 0])[MASK])
    with pytest.raises(ValueError, match=r"sal/a.npy: whole numbers up to 2, and it is not clear .* foreground = \["):
        label(tmp_path / "ids", "sal", toml, encoded(MASK, ".npy"), "npy")


def test_grey_levels_and_colours_of_masks(tmp_path):
    levels = np.linspace(0, 255, H * W).astype(np.uint8).reshape(H, W)
    np.testing.assert_array_equal(label(tmp_path / "1", "sal", "[tasks.sal]\n", png(levels))[..., 0], levels > 127.5)
    got = label(tmp_path / "2", "edge", "[tasks.edge]\n", png(levels))[..., 0]
    np.testing.assert_allclose(got, levels / 255, rtol=1e-6)
    with pytest.raises(ValueError, match=r"values 9, expected 1 \(foreground\), 0 \(background\), 255 \(ignored\)"):
        label(
            tmp_path / "3", "sal", "[tasks.sal]\nforeground = [1]\nignore = [255]\n", png(np.full((H, W), 9, np.uint8))
        )
    red = np.zeros((H, W, 3), np.uint8)
    red[:9, :, 2] = 255
    with pytest.raises(ValueError, match=r"sal/a.png: it is in colour \(2 colours, .* \[255, 0, 0\]\)"):
        label(tmp_path / "4", "sal", "[tasks.sal]\n", png(red))


def test_ignored_pixels_of_masks_stay_ignored_in_training(tmp_path):
    root = write(
        tmp_path / "raw",
        "[tasks.sal]\nforeground = [1]\nignore = [255]\n",
        {"sal.png": png(np.array((0, 1, 255), np.uint8)[MASK])},
    )
    source = datasets.open_split(build(root, tmp_path / "tfds"), "train")
    options = {"tasks": ("sal",), "recipe": "none", "size": (H, W), "batch_size": 2, "seed": 0, "num_workers": 0}
    batch = next(train_batches(source, conventions=OWN, **options))
    np.testing.assert_array_equal(batch["sal"][0, ..., 0], np.array([0, 1, IGNORE])[MASK])


# Depth


@pytest.mark.parametrize("suffix", ["png", "npy"])
def test_depth_that_was_not_measured(tmp_path, suffix):
    raw = np.full((H, W), 20_000, np.uint16 if suffix == "png" else np.float32)
    raw[:9], raw[9:12], raw[12:20] = 65535, 0, 50_000
    toml = f'[tasks.depth]\nsuffix = ".{suffix}"\ninvalid = [65535]\nmax = 40.0\n'
    if suffix == "npy":
        raw = raw / 1000
        raw[:9], raw[20], raw[21], raw[22] = 65535, np.nan, np.inf, -1
        toml = toml.replace("[65535]", "[65535, -1, inf]")
    want = np.full((H, W), 20.0)
    want[:20] = 0
    if suffix == "npy":
        want[20:23] = 0
    np.testing.assert_allclose(label(tmp_path, "depth", toml, encoded(raw, f".{suffix}"), suffix)[..., 0], want)


def a_pixel(value, dtype=np.float32):
    depth = np.full((H, W), 2, dtype)
    depth[3, 4] = value
    return depth


@pytest.mark.parametrize(
    ("toml", "content", "message"),
    [
        (
            "",
            png(a_pixel(65535, np.uint16)),
            r"1 pixels hold 65535, the greatest .* invalid = \[65535\]",
        ),
        ('suffix = ".npy"', encoded(a_pixel(-1), ".npy"), "values from -1 to 2, expected 0 to 254"),
        ('suffix = ".npy"', encoded(a_pixel(np.inf), ".npy"), "1 values are infinite"),
        ("", cv2.imencode(".jpg", a_pixel(9, np.uint8))[1].tobytes(), "it is a JPEG, whose compression changes values"),
        ("", with_palette(IDS), "its values are indices into a palette, expected grey levels"),
    ],
    ids=["65535", "negative", "infinite", "JPEG", "palette"],
)
def test_files_without_depth(tmp_path, toml, content, message):
    suffix = "npy" if "npy" in toml else "png"
    with pytest.raises(ValueError, match=f"depth/a.{suffix}: {message}"):
        label(tmp_path, "depth", f"[tasks.depth]\n{toml}\n", content, suffix)


def test_65535_may_be_a_value(tmp_path):
    content = png(a_pixel(65535, np.uint16))
    got = label(tmp_path, "depth", "[tasks.depth]\ninvalid = []\n", content)
    assert got[3, 4, 0] == np.float32(65.535)


# Normals


def normals(declared, shape=(H, W)):
    """The normals of a floor and of walls that the camera sees, in the declared axes."""
    rng = np.random.default_rng(3)
    seen = rng.normal(size=(*shape, 3)) * (0.6, 0.6, 0.3) - (0, 0.3, 1)  # OpenCV's axes: x right, y down, z forward
    seen[..., 2] = -np.abs(seen[..., 2])
    seen /= np.linalg.norm(seen, axis=-1, keepdims=True)
    return (seen @ axes.to_opencv(declared)).astype(np.float32)


@pytest.mark.parametrize("declared", ["opencv", "opengl", "z-up", "LUF"])
@pytest.mark.parametrize("suffix", ["png", "npy"])
def test_declared_axes(tmp_path, declared, suffix):
    vectors = normals(declared)
    coded = np.rint((vectors + 1) * 127.5).astype(np.uint8)
    content = encoded(coded if suffix == "png" else vectors, f".{suffix}")
    toml = f'[tasks.normals]\nsuffix = ".{suffix}"\naxes = "{declared}"\n'
    np.testing.assert_allclose(label(tmp_path, "normals", toml, content, suffix), vectors, atol=1 / 127)
    data = Data(dataset="folder", manual_dir=str(tmp_path / "raw"), data_dir=str(tmp_path / "tfds"), tasks=("normals",))
    assert experiment.make(experiment.resolve(Config(data))).conventions.axes == declared
    stored = Data(dataset="folder", builder="folder_mt/own", data_dir=str(tmp_path / "tfds"), tasks=("normals",))
    assert experiment.make(experiment.resolve(Config(stored))).conventions.axes == declared


@pytest.mark.parametrize("declared", ["", 'axes = "opencv"'])
def test_the_assumed_axes_are_said_aloud(tmp_path, declared, caplog):
    label(
        tmp_path,
        "normals",
        f'[tasks.normals]\nsuffix = ".npy"\n{declared}\n',
        encoded(normals("opencv"), ".npy"),
        "npy",
    )
    said = "does not say the axes of tasks.normals; the transforms take them for opencv (x right, y down, z forward)"
    assert (said in caplog.text) == (declared == "")


@pytest.mark.parametrize(("declared", "other"), [("opengl", "opencv"), ("z-up", "opencv")])
def test_axes_that_do_not_fit(tmp_path, declared, other):
    content = encoded(normals(declared), ".npy")
    toml = f'[tasks.normals]\nsuffix = ".npy"\naxes = "{other}"\n'
    with pytest.raises(ValueError, match=f"only .*% of the normals point to the camera if their axes are '{other}'"):
        label(tmp_path, "normals", toml, content, "npy")


def test_normals_without_a_value(tmp_path):
    vectors = normals("opencv")
    vectors[:5], vectors[5:9, :, 1] = 0, np.nan
    got = label(tmp_path, "normals", '[tasks.normals]\nsuffix = ".npy"\n', encoded(vectors, ".npy"), "npy")
    np.testing.assert_array_equal(got, np.where(np.arange(H)[:, None, None] < 9, 0, vectors))
    coded = np.rint((normals("opencv") + 1) * 127.5).astype(np.uint8)
    with pytest.raises(ValueError, match="it is a JPEG, whose compression changes values"):
        label(tmp_path / "2", "normals", "[tasks.normals]\n", cv2.imencode(".jpg", coded)[1].tobytes())
