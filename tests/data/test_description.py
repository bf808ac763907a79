"""The file that describes a user's own data."""

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
        (LEAST + "classes = 3", "tasks.depth.classes is not known; there are folder, suffix, unit"),
        (LEAST + "unit = 0", "tasks.depth.unit is 0, expected metres, above 0"),
        (LEAST + 'suffix = ".mat"', "tasks.depth.suffix is '.mat', expected '.png' or '.npy'"),
        (LEAST + "[tasks.semseg]", r"tasks.semseg.classes is missing, expected a list of names"),
        (LEAST + "[tasks.semseg]\nclasses = ['a', 'a']", r"classes is \['a', 'a'\], expected a list of names without"),
        (LEAST + "[tasks.semseg]\nclasses = 256", "classes is 256, expected .* from 2 to 255"),
        (LEAST + "[splits]\ntest = 'x'", "splits.test is not known; there are train and val"),
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
    with pytest.raises(FileNotFoundError, match=r"dataset.toml does not exist; .* README"):
        description.read(tmp_path)
