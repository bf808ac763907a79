"""Rendered scenes in the layouts of NYUD_MT and PASCAL_MT."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io

from mtl_jax.codecs import pictures
from mtl_jax.data import datasets, records
from mtl_jax.data.rendered import release_files, rooms

IDS = {"train": ["0003", "a_1", "0002"], "val": ["0010", "0011"]}
REAL = Path(__file__).parents[2].parent / "shared" / "data" / "pascal_samples" / "pascal_part"


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def pascal(tmp_path_factory):
    return release_files.write_pascal(tmp_path_factory.mktemp("export"), IDS, height=60, width=80)


@pytest.mark.parametrize("release", ["astmt", "survey"])
def test_nyud(tmp_path, release):
    root = release_files.write_nyud(tmp_path, release, IDS, height=48, width=64, seed=3)
    assert root == tmp_path / "NYUD_MT"
    builder = datasets.prepare(f"nyud_mt/{release}_subset", tmp_path / "tfds", root)
    for split, names in IDS.items():
        source = datasets.open_split(builder, split)
        for i, name in enumerate(names):
            got = records.decode(source[i], ("semseg", "normals", "edge", "depth"))
            want = rooms.sample(np.random.default_rng([3, *name.encode()]), 48, 64)
            assert got["id"] == name
            assert np.abs(got["image"].astype(int) - want["image"]).mean() < 6  # JPEG
            np.testing.assert_array_equal(got["semseg"], want["semseg"])
            np.testing.assert_array_equal(got["depth"], want["depth"])
            np.testing.assert_array_equal(got["edge"], want["edge"] / 255)
            off = np.abs(got["normals"] - want["normals"])
            assert off.max() == 0 if release == "survey" else np.median(off) < 0.05  # JPEG


def test_unknown_release(tmp_path):
    with pytest.raises(ValueError, match="release is 'vote'; it must be 'astmt' or 'survey'"):
        release_files.write_nyud(tmp_path, "vote", IDS)


def test_depends_on_seed_and_id_only(tmp_path, pascal):
    other = release_files.write_pascal(tmp_path / "other", {"val": ["0002", "0003", "a_1"]}, height=60, width=80)
    for kind in ("JPEGImages/{}.jpg", "normals_distill/{}.png"):
        for key in IDS["train"]:
            assert (other / kind.format(key)).read_bytes() == (pascal / kind.format(key)).read_bytes()
    seeded = release_files.write_pascal(tmp_path / "seeded", {"val": ["0002"]}, height=60, width=80, seed=1)
    assert (seeded / "JPEGImages/0002.jpg").read_bytes() != (pascal / "JPEGImages/0002.jpg").read_bytes()


def test_processes_write_the_same(tmp_path, pascal, monkeypatch):
    monkeypatch.setattr(release_files, "_FEWEST_FOR_POOL", 2)
    monkeypatch.setattr(release_files.workers, "cpu_count", lambda: 2)
    again = release_files.write_pascal(tmp_path, IDS, height=60, width=80)
    drawn = [name for name in content(pascal) if not name.endswith(".mat")]  # these hold the time they were written
    assert content(again).keys() == content(pascal).keys()
    assert all(content(again)[name] == content(pascal)[name] for name in drawn)


def test_pascal_layout(pascal):
    voc, context = ["0003", "0002", "0010"], ["a_1", "0011"]
    everything = [key for names in IDS.values() for key in names]
    assert set(content(pascal)) == {
        *(f"ImageSets/Context/{split}.txt" for split in IDS),
        *(f"semseg/VOC12/{key}.png" for key in voc),
        *(f"semseg/pascal-context/{key}.png" for key in context),
        *(f"JPEGImages/{key}.jpg" for key in everything),
        *(f"{folder}/{key}.mat" for key in everything for folder in ("pascal-context/trainval", "human_parts")),
        *(f"{folder}/{key}.png" for key in everything for folder in ("normals_distill", "sal_distill")),
    }
    assert (pascal / "ImageSets/Context/train.txt").read_text().split() == IDS["train"]
    sizes = {cv2.imread(str(pascal / f"JPEGImages/{key}.jpg")).shape[:2] for key in everything}
    assert len(sizes) > 1
    assert all(53 <= height <= 67 and 70 <= width <= 90 for height, width in sizes)


def test_pascal_classes(pascal):
    """The colours of the VOC palette (person: 192, 128, 128), and ids of the 459 classes that agree."""
    seen = set()
    for folder, key in [("VOC12", "0003"), ("pascal-context", "a_1"), ("VOC12", "0002"), ("VOC12", "0010")]:
        data = (pascal / f"semseg/{folder}/{key}.png").read_bytes()
        index = pictures.decode(data, 1)[..., 0]
        labels = scipy.io.loadmat(pascal / f"pascal-context/trainval/{key}.mat")["LabelMap"]
        assert labels.dtype == np.uint16
        np.testing.assert_array_equal(labels == 284, index == 15)
        np.testing.assert_array_equal(labels == release_files.UNKNOWN, index == 255)
        seen |= set(np.unique(labels).tolist())
        if folder == "VOC12":
            colours = pictures.decode(data, 3)
            assert (colours[index == 15] == (192, 128, 128)).all()
            assert (colours[index == 255] == (224, 224, 192)).all()
            assert (colours[index == 0] == 0).all()
    assert {284, release_files.UNKNOWN} < seen
    assert seen & {release_files.FLOOR, release_files.WALL}


def test_every_background_class():
    x = {
        "semseg": np.zeros((4, 1, 1), np.uint8),
        "normals": np.float32([[[0, 0, 1]], [[0, 0, -1]], [[0, -1, 0]], [[0, 0, 0]]]),
    }
    np.testing.assert_array_equal(release_files.label_map(x)[:, 0], [189, 44, 44, 360])  # ground, building, sky
    x["normals"][3] = (1, 0, 0)
    np.testing.assert_array_equal(release_files.label_map(x)[:, 0], [158, 68, 440, 440])  # floor, ceiling, wall


def test_annotation_is_nested_like_the_original(pascal):
    def nesting(file):
        anno = scipy.io.loadmat(file)["anno"]
        objects = anno[0, 0]["objects"]
        found = {(anno.shape, anno.dtype, anno[0, 0]["imname"].shape, objects.dtype, objects.shape[0])}
        for thing in objects[0]:
            parts = thing["parts"]
            found.add((thing["class"].shape, thing["class_ind"].dtype, thing["class_ind"].shape, thing["mask"].dtype))
            found.add((parts.dtype, parts.shape[0], parts[0, 0]["part_name"].shape if parts.size else None))
        return found

    if not REAL.is_dir():
        pytest.skip("no real samples beside the checkout (shared/data/pascal_samples)")
    real = set().union(*(nesting(REAL / f"{key}.mat") for key in ("2010_005243", "2008_000652", "2010_000145")))
    made = set().union(*(nesting(pascal / f"human_parts/{key}.mat") for key in ("0003", "0002", "0010")))
    assert made <= real
