"""The file that describes a user's own data."""

import json
import math

import pytest

from mtl_jax.data import description
from mtl_jax.labels import LabelFiles

LEAST = """
image_size = [48, 64]
[tasks.depth]
"""
EVERYTHING = """
name = "kitchen-2"
image_size = [480, 640]
images = "rgb"
[splits]
train = "lists/a.txt"
val = "lists/b.txt"
[tasks.depth]
unit = 0.0002
suffix = ".npy"
folder = "d"
[tasks.semseg]
classes = ["floor", "wall", "cup"]
first_id = 1
ignore = [0, 255]
[tasks.human_parts]
classes = 4
"""


def read(tmp_path, text):
    (tmp_path / "dataset.toml").write_text(text)
    return description.read(tmp_path)


def test_defaults(tmp_path):
    (tmp_path / "own").mkdir()
    found = read(tmp_path / "own", LEAST)
    assert found.name == "own"
    assert found.image_size == (48, 64)
    assert found.images == "images"
    assert found.splits == {"train": "splits/train.txt", "val": "splits/val.txt"}
    assert found.labels == {"depth": LabelFiles("depth")}
    assert found.class_names == {}


def test_everything(tmp_path):
    found = read(tmp_path, EVERYTHING)
    assert (found.name, found.images, found.splits["val"]) == ("kitchen-2", "rgb", "lists/b.txt")
    assert list(found.labels) == ["semseg", "human_parts", "depth"]  # in the order of the task table
    assert found.labels["depth"] == LabelFiles("d", ".npy", unit=0.0002)
    assert found.labels["semseg"] == LabelFiles("semseg", classes=("floor", "wall", "cup"), first_id=1, ignore=(0, 255))
    assert found.class_names == {"semseg": ("floor", "wall", "cup"), "human_parts": ("0", "1", "2", "3")}


def test_255_is_a_class_where_it_has_to_be(tmp_path):
    text = "image_size = [48, 64]\n[tasks.semseg]\nclasses = 255\nfirst_id = 1\n"
    assert read(tmp_path, text).labels["semseg"].ignore == ()
    with pytest.raises(ValueError, match=r"tasks.semseg.ignore names \[255\], which are pixel values of classes"):
        read(tmp_path, text + "ignore = [255]\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_size = [48", "dataset.toml is no TOML"),
        ("[tasks.depth]", r"image_size is missing, expected \[height, width\], each at least 32"),
        ("image_size = [16, 64]\n[tasks.depth]", r"image_size is \[16, 64\]"),
        ("image_size = [48, 64]", "tasks is missing, expected a table for each task"),
        (LEAST + "[tasks.depht]", "tasks.depht is no task; the tasks are semseg, human_parts"),
        (
            LEAST + "classes = 3",
            "tasks.depth.classes is not known; there are folder, suffix, labels, unit, inv",
        ),
        (LEAST + "unit = 0", "tasks.depth.unit is 0, expected metres, above 0"),
        (LEAST + 'suffix = ".mat"', "tasks.depth.suffix is '.mat', expected '.png' or '.npy'"),
        (LEAST + "[tasks.semseg]", r"tasks.semseg.classes is missing, expected a list of names"),
        (LEAST + "[tasks.semseg]\nclasses = ['a', 'a']", r"classes is \['a', 'a'\], expected a list of names without"),
        (LEAST + "[tasks.semseg]\nclasses = 256", "classes is 256, expected .* from 2 to 255"),
        (LEAST + "[splits]\ntest = 3", r"splits.test is 3, expected the name of a file .*, or {name = "),
        (LEAST + "[splits.test]\nfile = 'x'", "splits.test.file is not known; there are ids and name"),
        (LEAST + "[splits]\n'a b' = 'x'", "splits.a b is no name of a split"),
        ("splits = ['train']\n" + LEAST, r"splits is \['train'\], expected a list of names with train and val"),
        ("splits = ['train', 'val']\n" + LEAST, "images is 'images' without {split}.* belong to train, val; put"),
        ("images = '{split}/x.png'\n" + LEAST, "images is '{split}/x.png', expected .* a pattern with {id}"),
        (LEAST + "labels = '{id}.txt'", "tasks.depth.labels is '{id}.txt', expected a pattern .* ends in '.png' or"),
        (LEAST + "labels = '{id}.png'\nfolder = 'x'", "tasks.depth.labels stands in place of folder; leave one"),
        (
            "image_size = [1000000000, 1000000000]\n[tasks.depth]",
            "image_size is .*, each .* at most 16384",
        ),
        (LEAST + "unit = inf", "tasks.depth.unit is inf, expected metres, above 0"),
        (LEAST + "unit = nan", "tasks.depth.unit is nan, expected metres, above 0"),
        (LEAST + "max = -1", "tasks.depth.max is -1, expected metres, above 0"),
        (LEAST + "invalid = 65535", "tasks.depth.invalid is 65535, expected a list of numbers"),
        (LEAST + 'folder = "a\\u0000b"', r"tasks.depth.folder is 'a\\x00b', expected the name of a folder"),
        pytest.param(LEAST + "unit = " + "[" * 100_000, "nested too deeply|is no TOML", id="nested"),
        ("image_size = 2024-01-01\n[tasks.depth]", r"image_size is datetime.date\(2024, 1, 1\), expected \[height"),
        pytest.param(LEAST + f"unit = {[1] * 1000}", r"unit is \[1, 1, .*\.\.\., expected metres", id="long"),
        (
            LEAST + "[tasks.normals]\naxes = 'RRF'",
            "tasks.normals.axes are 'RRF', expected 'opencv', 'opengl'",
        ),
        (LEAST + "[tasks.sal]\nignore = [255]", "tasks.sal.ignore needs foreground"),
        (LEAST + "[tasks.sal]\nforeground = [1]\nignore = [1]", r"foreground, background and ignore share \[1\]"),
        (LEAST + "[tasks.sal]\nfrom = 'semseg'", "tasks.sal.from is not known"),
        (LEAST + "[tasks.edge]\nfrom = 'depth'", "tasks.edge.from is 'depth', expected a task here with classes: none"),
        (LEAST + "[tasks.edge]\nfrom = 'depth'\nfolder = 'x'", "tasks.edge.folder is not known; there are from, which"),
        (
            LEAST + "[tasks.semseg]\nclasses = 2\nfirst_id = 1\ncolors = [[0, 0, 0]]\nignore = [[0, 0, 0]]",
            r"first_id says nothing .*colors has 1 colours, expected one for each of the 2 classes.*"
            r"ignore names \[\[0, 0, 0\]\]",
        ),
        (LEAST + "[tasks.semseg]\nclasses = 2\ncolors = [[0, 0], [1, 1]]", r"colors is .*, expected a list of \[red"),
        ("name = 'a b'\n" + LEAST, "name is 'a b', expected letters, digits"),
        (
            "image = 'x'\n" + LEAST,
            "image is not known; there are name, image_size, images, orientation, splits and tasks",
        ),
    ],
)
def test_faults(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text)


def test_all_faults_at_once(tmp_path):
    with pytest.raises(ValueError, match=r"image_size is .*; tasks.depth.unit is .*; tasks.x is no task"):
        read(tmp_path, "image_size = 3\n[tasks.depth]\nunit = -1\n[tasks.x]\n")


def test_no_description(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"dataset.toml does not exist; .* docs/own_data.md"):
        description.read(tmp_path)


def test_byte_order_mark(tmp_path):
    """Some editors write one at the beginning of a file."""
    (tmp_path / "dataset.toml").write_bytes(b"\xef\xbb\xbf" + LEAST.encode())
    assert description.read(tmp_path).image_size == (48, 64)


def test_other_layouts(tmp_path):
    text = """
images = "leftImg8bit/{split}/{id}_leftImg8bit.png"
image_size = [48, 64]
[splits]
train = {name = "training", ids = "lists/a.txt"}
val = "lists/b.txt"
test = {}
[tasks.semseg]
labels = "gtFine/{split}/{id}_labelIds.PNG"
classes = ["road", "car"]
colors = [[128, 64, 128], [0, 0, 142]]
ignore = [[0, 0, 0]]
[tasks.edge]
from = "semseg"
[tasks.sal]
foreground = [1, 2]
ignore = [255]
[tasks.depth]
invalid = [65535, -1.5, inf]
max = 80
[tasks.normals]
axes = "opengl"
"""
    described = read(tmp_path, text)
    assert described.splits == {"train": "lists/a.txt", "val": "lists/b.txt", "test": ""}
    assert described.split_names == {"train": "training"}
    assert described.by_split
    assert described.image_files.stem_of("training/a/b", by_split=True) == "leftImg8bit/training/a/b_leftImg8bit"
    assert described.image_files.suffixes == (".png",)
    labels = described.labels
    assert described.label_files["semseg"].stem_of("val/x", by_split=True) == "gtFine/val/x_labelIds"
    assert (labels["semseg"].colors, labels["semseg"].ignore_colors) == (((128, 64, 128), (0, 0, 142)), ((0, 0, 0),))
    assert labels["edge"].derived_from == "semseg"
    assert (labels["sal"].foreground, labels["sal"].background, labels["sal"].ignore) == ((1, 2), (0,), (255,))
    assert (labels["depth"].invalid, labels["depth"].max) == ((65535, -1.5, math.inf), 80)
    assert described.axes == "opengl"
    assert description.from_dict(json.loads(json.dumps(description.to_dict(described)))) == described


def test_the_stored_description_of_an_older_version_is_read(tmp_path):
    described = read(tmp_path, EVERYTHING)
    stored = description.to_dict(described)
    assert set(stored) == {"name", "image_size", "images", "splits", "labels"}
    assert set(stored["labels"]["depth"]) == {"folder", "suffix", "classes", "first_id", "ignore", "unit"}
    assert description.from_dict(json.loads(json.dumps(stored))) == described
