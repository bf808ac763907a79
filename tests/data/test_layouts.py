"""Folders of other people: patterns in place of fixed folders, ids from the files that are there, derived labels."""

import cv2
import numpy as np
import pytest

from mtl_jax.codecs import pictures
from mtl_jax.data import catalogue, datasets
from mtl_jax.tasks import IGNORE
from tests.data.own_folder import H, W, build

OWN = catalogue.FAMILIES["folder"]
CAMVID = """
name = "own"
image_size = [32, 48]
images = "{split}/{id}.png"
splits = ["train", "val", "test"]
[tasks.semseg]
labels = "{split}annot/{id}.png"
classes = ["sky", "road", "car"]
ignore = [11]
[tasks.edge]
from = "semseg"
"""


def put(root, name, value):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pictures.encode_png(value))


def image(grey=90):
    return np.full((H, W, 3), grey, np.uint8)


def regions():
    """The sky above, a road, a car on it, and a region without a class."""
    classes = np.zeros((H, W), np.uint8)
    classes[20:], classes[25:35, 10:30], classes[20:, 40:] = 1, 2, 11
    return classes


def camvid(root, toml=CAMVID):
    root.mkdir()
    (root / "dataset.toml").write_text(toml)
    for split, ids in {"train": ["seq1/a", "seq1/b"], "val": ["seq1/a"], "test": ["c", "d"]}.items():
        for number, key in enumerate(ids):
            put(root, f"{split}/{key}.png", image(10 * number + len(split)))
            put(root, f"{split}annot/{key}.png", regions())
    return root


def test_folders_of_splits(tmp_path):
    builder = build(camvid(tmp_path / "raw"), tmp_path / "tfds")
    ids = {split: datasets.open_split(builder, split).ids() for split in ("train", "val", "test")}
    assert ids == {"train": ["train/seq1/a", "train/seq1/b"], "val": ["val/seq1/a"], "test": ["test/c", "test/d"]}
    sample = datasets.open_split(builder, "test").sample(1, ("semseg",), OWN)
    assert (sample["image"] == 14).all()
    np.testing.assert_array_equal(sample["semseg"][..., 0], np.where(regions() == 11, IGNORE, regions()))


def test_edges_from_classes(tmp_path):
    source = datasets.open_split(build(camvid(tmp_path / "raw"), tmp_path / "tfds"), "val")
    edge = source.sample(0, ("edge",), OWN)["edge"][..., 0]
    want = np.zeros((H, W))
    want[19, :40] = 1  # between the sky and the road
    want[24, 10:30], want[34, 10:30], want[25:35, 9], want[25:35, 29] = 1, 1, 1, 1  # around the car
    want[20:, 40:] = IGNORE
    np.testing.assert_array_equal(edge, want)
    truth = source.boundary(0, edge[..., None])
    assert truth.any()
    assert not truth[21:, 42:].any()  # no edges to find where there is no class


def test_other_names_of_splits_and_lists(tmp_path):
    """ADE20K has images/training and annotations/training."""
    root = tmp_path / "raw"
    toml = CAMVID.replace('splits = ["train", "val", "test"]', "").replace("{split}annot", "annotations/{split}")
    toml = toml.replace('images = "{split}/{id}.png"', 'images = "images/{split}/{id}"')
    splits = '[splits]\ntrain = {name = "training"}\nval = {name = "validation", ids = "val.txt"}\n'
    root.mkdir()
    (root / "dataset.toml").write_text(toml + splits)
    for split, key in (("training", "x"), ("validation", "x"), ("validation", "y")):
        put(root, f"images/{split}/{key}.JPG" if key == "y" else f"images/{split}/{key}.png", image())
        put(root, f"annotations/{split}/{key}.png", regions())
    (root / "val.txt").write_text("y\n")
    builder = build(root, tmp_path / "tfds")
    assert datasets.open_split(builder, "train").ids() == ["training/x"]
    assert datasets.open_split(builder, "val").ids() == ["validation/y"]


def test_labels_beside_images(tmp_path, caplog):
    root = tmp_path / "raw"
    toml = CAMVID.replace("{split}annot/{id}.png", "{split}/{id}_mask.png").replace(', "test"', "")
    root.mkdir()
    (root / "dataset.toml").write_text(toml)
    for name in ("train/a", "train/b", "val/a"):
        put(root, f"{name}.png", image())
        put(root, f"{name}_mask.png", regions())
    builder = build(root, tmp_path / "tfds")
    assert datasets.open_split(builder, "train").ids() == ["train/a", "train/b"]
    assert "belong to no image" not in caplog.text


def test_labels_of_all_splits_in_one_folder(tmp_path, caplog):
    root = tmp_path / "raw"
    toml = CAMVID.replace("{split}annot/{id}.png", "labels/{id}.png").replace(', "test"', "")
    root.mkdir()
    (root / "dataset.toml").write_text(toml)
    for split, key in (("train", "a"), ("val", "b")):
        put(root, f"{split}/{key}.png", image())
        put(root, f"labels/{key}.png", regions())
    put(root, "labels/c.png", regions())
    source = datasets.open_split(build(root, tmp_path / "tfds"), "val")
    assert source.ids() == ["val/b"]
    assert (source.sample(0, ("semseg",), OWN)["semseg"] == 1).any()
    assert "1 label files of semseg belong to no image of the lists, for example labels/c.png" in caplog.text


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("val", "has no folder val"),
        ("val/seq1/a.png", r"no file val/{id} with the suffix .png is there"),
        ("valannot/seq1/a.png", "id 'val/seq1/a' has no label of any task"),
    ],
)
def test_missing_files(tmp_path, lost, message):
    root = camvid(tmp_path / "raw")
    path = root / lost
    path.rename(root / "elsewhere")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        build(root, tmp_path / "tfds")


def test_faults_name_the_file(tmp_path):
    root = camvid(tmp_path / "raw")
    (root / "trainannot/seq1/b.png").write_bytes(cv2.imencode(".png", np.full((H, W), 77, np.uint8))[1].tobytes())
    with pytest.raises(ValueError, match=r"trainannot/seq1/b.png: class ids 77, expected 0 to 2 \(3 classes\), 11"):
        build(root, tmp_path / "tfds")


@pytest.mark.parametrize("name", ["a,b", "a[1]", "a b", "ä"])
def test_odd_names_of_folders(tmp_path, name):
    root = camvid(tmp_path / name)
    builder = build(root, tmp_path / f"tfds {name.translate({91: None, 93: None})}")
    assert (datasets.open_split(builder, "val").sample(0, (), OWN)["image"] == 3).all()


def test_a_data_folder_that_looks_like_a_pattern(tmp_path):
    root = camvid(tmp_path / "raw")
    with pytest.raises(ValueError, match=r"the data folder .*tfds\[1\] has \[ and \] in it"):
        build(root, tmp_path / "tfds[1]")
