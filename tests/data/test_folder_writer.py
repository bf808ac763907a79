"""Folder data sets that the package writes: what is written is what the build reads."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mtl_jax import tasks as task_table
from mtl_jax.codecs import pictures
from mtl_jax.data import datasets, description, description_text
from mtl_jax.data.folder_writer import FolderWriter
from mtl_jax.labels import Conventions, LabelFiles, RealValues
from mtl_jax.tasks import IGNORE

H, W = 24, 40
CLASSES = {"semseg": ("floor", 'a "wall"', "Tür"), "human_parts": ("background", "head")}
TASKS = tuple(task_table.TASKS)


def labels(axes="opencv"):
    """A canonical label of every task, the first row without a label."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(H, W, 3)).astype(np.float32)
    vectors[..., 2] = -abs(vectors[..., 2])  # they face the camera in the axes of OpenCV
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    made = {
        "semseg": rng.integers(0, 3, (H, W, 1), dtype=np.uint8),
        "human_parts": rng.integers(0, 2, (H, W, 1), dtype=np.uint8),
        "sal": rng.integers(0, 2, (H, W, 1)).astype(np.float32),
        "normals": vectors,
        "edge": rng.integers(0, 2, (H, W, 1)).astype(np.float32),
        "depth": rng.uniform(0.5, 200, (H, W, 1)).astype(np.float32),
    }
    for task, label in made.items():
        label[0] = task_table.get(task).kind.void
    return made


def image():
    return np.random.default_rng(1).integers(0, 256, (H, W, 3), np.uint8)


def write(root: Path, conventions=None, tasks=TASKS, key="rooms/a", data=None):
    conventions = conventions or Conventions(axes="opencv")
    writer = FolderWriter(root, (32, 48), CLASSES, tasks, conventions)
    for name in (key, "b"):
        writer.write(name, data, image(), {task: label for task, label in labels().items() if task in tasks})
    return writer.finish({"train": [key], "val": ["b"]})


def test_labels_come_back_from_the_files(tmp_path):
    root = write(tmp_path / "own")
    builder = datasets.prepare("folder_mt/own", tmp_path / "tfds", root, num_workers=0)
    source = datasets.open_split(builder, "train")
    sample = source.sample(0, TASKS, Conventions(normals_void=True, axes="opencv"))
    assert sample["id"] == "rooms/a"
    np.testing.assert_array_equal(sample["image"], image())
    for task, wanted in labels().items():
        kind = task_table.get(task).kind
        np.testing.assert_array_equal(kind.labelled(sample[task]), kind.labelled(wanted), task)
        np.testing.assert_allclose(sample[task], wanted, atol=1 / 255 if task == "normals" else 0, err_msg=task)
        assert not kind.labelled(sample[task])[0].any()


def test_the_description_says_what_was_written(tmp_path):
    content = description.read(write(tmp_path / "own"))
    assert (content.name, content.image_size) == ("own", (32, 48))
    assert content.class_names == CLASSES
    assert content.axes == "opencv"
    assert content.labels["sal"].ignore == (128,)
    assert description.read(write(tmp_path / "no-axes", Conventions(), ("normals", "depth"))).axes == ""


@pytest.mark.parametrize(
    "files",
    [
        LabelFiles(folder="semseg", classes=("a", "b"), first_id=1, ignore=(0, 255)),
        LabelFiles(pattern="{split}annot/{id}.png", classes=("a", "b"), ignore=()),
        LabelFiles(folder="masks", suffix=".npy", foreground="levels", ignore=(-1,)),
        LabelFiles(folder="edge", foreground=(1, 2), background=(0, 3), ignore=()),
        LabelFiles(derived_from="semseg"),
        LabelFiles(folder="depth", suffix=".npy", unit=0.5, invalid=(65535, -1.5), max=80.0),
        LabelFiles(folder="normals", axes="LUF"),
    ],
)
def test_every_description_is_read_as_it_was_written(tmp_path, files):
    task = "semseg" if files.classes else "depth" if files.max < 100 else "normals" if files.axes else "edge"
    others = {"semseg": LabelFiles(folder="semseg", classes=("x", "y"))}
    ordered = {name: {**others, task: files}[name] for name in TASKS if name in {**others, task: files}}
    splits = {"train": "a.txt", "val": "b.txt", "test": "lists/c.txt"}
    told = description.Description("own", (32, 64), "{split}/{id}.jpg", splits, ordered, "upright")
    (tmp_path / description.FILE).write_text(description_text.text(told), encoding="utf-8")
    assert description.read(tmp_path) == told


def encoded(suffix, **options):
    content = io.BytesIO()
    Image.fromarray(image()).save(content, suffix, **options)
    return content.getvalue()


def test_intact_image_files_are_copied_and_others_become_png(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    damaged = bytearray(encoded("jpeg", quality=95))
    damaged[-60:-40] = bytes(20)
    assert pictures.damage(bytes(damaged))
    for name, data, suffix in (
        ("jpeg", encoded("jpeg"), ".jpg"),
        ("png", encoded("png"), ".png"),
        ("turned", encoded("jpeg", exif=turned), ""),
        ("damaged", bytes(damaged), ""),
        ("webp", encoded("webp"), ""),
        ("array", None, ""),
    ):
        root = write(tmp_path / name, tasks=("depth",), data=data)
        path = root / "images/rooms" / f"a{suffix or '.png'}"
        if suffix:
            assert path.read_bytes() == data
        else:
            np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB), image())


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match=r"'a b' is none; name the folder by letters, digits"):
        write(tmp_path / "a b")
    write(tmp_path / "own", tasks=("depth",))
    with pytest.raises(FileExistsError, match="own exists and is no empty folder; give the name of a new one"):
        write(tmp_path / "own")
    for i, key in enumerate(("../a", "/a", "", " a", "a\nb")):
        with pytest.raises(ValueError, match="of an image is no name of a file below a folder"):
            write(tmp_path / f"new{i}", key=key)


# Labels from predictions.


def test_labels_that_a_teacher_gives():
    kinds = {task: task_table.get(task).kind for task in TASKS}
    ids = kinds["semseg"].as_label(np.array([[0, 2]], np.int32), Conventions())
    assert (ids.dtype, ids.tolist()) == (np.uint8, [[[0], [2]]])
    p = np.array([[[0.4], [0.6]]], np.float32)
    assert kinds["sal"].as_label(p, Conventions()).tolist() == [[[0.0], [1.0]]]
    np.testing.assert_allclose(kinds["edge"].confidence(p), [[0.6, 0.6]], rtol=1e-6)
    metres = np.array([[[-0.5], [3.0], [np.nan], [300.0]]], np.float32)
    assert kinds["depth"].as_label(metres, Conventions()).tolist() == [[[0.0], [3.0], [0.0], [0.0]]]
    assert kinds["depth"].confidence(metres) is None
    heat = RealValues(low=0.0, high=1.0).as_label(metres[:, :1], Conventions())
    assert heat.tolist() == [[[IGNORE]]]
    towards, away = [0.0, 0.0, -1.0], [0.0, 0.0, 1.0]
    vectors = np.array([[towards, away]], np.float32)
    assert kinds["normals"].as_label(vectors, Conventions(axes="opencv")).tolist() == [[towards, [0, 0, 0]]]
    assert kinds["normals"].as_label(vectors, Conventions(axes="opengl")).tolist() == [[[0, 0, 0], away]]
    assert kinds["normals"].as_label(vectors, Conventions()).tolist() == [[towards, away]]


def test_the_confidence_is_that_of_the_decided_class():
    rng = np.random.default_rng(0)
    values = rng.dirichlet(np.ones(4), (3, 5)).astype(np.float32)
    kind = task_table.get("semseg").kind
    assert kind.confidence(values).tolist() == values.max(axis=-1).tolist()
    larger = np.stack([cv2.resize(values[..., i], (10, 6), interpolation=cv2.INTER_LINEAR) for i in range(4)], axis=-1)
    np.testing.assert_allclose(kind.confidence_at(values, 6, 10), larger.max(axis=-1), rtol=1e-6)
    np.testing.assert_array_equal(kind.decide_at(values, 6, 10), larger.argmax(axis=-1))
