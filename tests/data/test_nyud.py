"""What the NYUD builder makes of both releases' files, and what it refuses."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from mtl_jax.boundaries import label_boundary
from mtl_jax.codecs import pictures
from mtl_jax.data import datasets, nyud, records
from tests.nyud_release import IDS, H, W, build, files_of, frame, mat, npy, write

SAMPLES = Path(__file__).parents[2].parent / "shared" / "data" / "nyud_samples"


@pytest.mark.usefixtures("worker_processes")
@pytest.mark.parametrize("release", ["astmt", "survey"])
def test_values(tmp_path, release):
    write(tmp_path / "raw", release)
    builder = build(release, tmp_path / "tfds", tmp_path / "raw")
    for split, names in IDS.items():
        source = datasets.open_split(builder, split)
        assert len(source) == len(names)
        seen = set()
        for i in range(len(source)):
            got = records.decode(source[i], ("semseg", "normals", "edge", "depth"))
            want = frame(int(got["id"]))
            seen.add(got["id"])
            jpeg = files_of(release, want)["images.jpg"]
            assert bytes(source[i]["image"]) == jpeg
            np.testing.assert_array_equal(got["image"], pictures.decode(jpeg, 3))
            semseg = np.where(want["semseg"] == 0, 255, want["semseg"].astype(int) - 1)
            np.testing.assert_array_equal(got["semseg"][..., 0], semseg)
            np.testing.assert_array_equal(got["depth"][..., 0], want["depth"])
            np.testing.assert_array_equal(got["edge"][..., 0], want["edge"])
            if release == "survey":
                np.testing.assert_array_equal(got["normals"], want["normals"])
            else:
                coded = pictures.decode(files_of(release, want)["normals.jpg"], 3)
                np.testing.assert_allclose(got["normals"], coded * (2 / 255) - 1, atol=1e-6)
            both_sides = label_boundary(want["edge"])
            np.testing.assert_array_equal(source.boundary(i, source.sample(i, ("edge",), "nyud")["edge"]), both_sides)
            assert (both_sides != want["edge"]).any()
        assert seen == set(names)


def test_features_and_names():
    assert [config.name for config in nyud.NyudMt.BUILDER_CONFIGS] == [
        "astmt",
        "survey",
        "astmt_subset",
        "survey_subset",
    ]
    survey = tfds.builder("nyud_mt/survey", data_dir="unused")
    default = tfds.builder("nyud_mt", data_dir="unused")
    assert default.builder_config.name == "astmt"
    assert default.info.file_format.value == "array_record"
    assert list(default.info.features) == ["id", "image", "semseg", "depth", "normals", "edge"]
    assert default.info.features["normals"].np_dtype == np.uint8
    assert survey.info.features["normals"].np_dtype == np.float32
    assert default.builder_config.counts == {"train": 795, "val": 654}


def replace(name, data):
    def edit(folder):
        path = folder / name
        path.unlink()
        if data is not None:
            path.write_bytes(data)

    return edit


SEG = frame(1)["semseg"]
NAN = np.where(np.arange(W) == 5, np.nan, frame(1)["depth"])
JPEG = files_of("astmt", frame(1))["images.jpg"]
FAULTS = {
    "missing": ("astmt", replace("depth/0001.mat", None), "depth/0001.mat is missing"),
    "key": ("astmt", replace("depth/0001.mat", mat(other=NAN)), r"0001.mat: no key 'depth'; the file has: other"),
    "mat": ("astmt", replace("segmentation/0001.mat", b"nonsense"), "segmentation/0001.mat: not a readable .mat file"),
    "nan": ("astmt", replace("depth/0001.mat", mat(depth=NAN)), f"depth/0001.mat: {H} values are NaN"),
    "nan npy": ("survey", replace("depth/0001.npy", npy(NAN)), f"depth/0001.npy: {H} values are NaN"),
    "npy": ("survey", replace("normals/0001.npy", b""), "normals/0001.npy: not a readable .npy file"),
    "shape": ("survey", replace("normals/0001.npy", npy(NAN)), r"shape \(48, 64\), expected \[H, W, 3\]"),
    "size": (
        "survey",
        replace("edge/0001.npy", npy(np.zeros((H, W - 1)))),
        "edge/0001.npy: size 48x63, the image is 48x64",
    ),
    "edge values": ("survey", replace("edge/0001.npy", npy(NAN * 0 + 7)), "NaN|expected 0 to 1"),
    "ids": ("astmt", replace("segmentation/0001.mat", mat(segmentation=SEG + 100)), "class ids .* from 0 .void. to 40"),
    "fraction": ("astmt", replace("segmentation/0001.mat", mat(segmentation=SEG / 2)), "class ids 0.5, 1.5"),
    "truncated": ("astmt", replace("images/0001.jpg", JPEG[:400]), r"images/0001.jpg: the JPEG ends early \(400 bytes"),
    "no image": ("astmt", replace("images/0001.jpg", b"x" * 99), "images/0001.jpg: it is no image"),
    "empty file": ("astmt", replace("edge/0001.png", b""), "edge/0001.png: it is empty"),
    "duplicate": ("astmt", replace("gt_sets/val.txt", b"0010\n0001\n"), "id '0001' is listed more than once"),
    "empty split": ("astmt", replace("gt_sets/val.txt", b"\n"), "gt_sets/val.txt lists no image"),
    "no list": ("astmt", replace("gt_sets/val.txt", None), "gt_sets/val.txt is missing"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(tmp_path, fault):
    release, edit, message = FAULTS[fault]
    edit(write(tmp_path / "raw", release))
    with pytest.raises(ValueError, match=message):
        build(release, tmp_path / "tfds", tmp_path / "raw")
    builder = tfds.builder(f"nyud_mt/{release}_subset", data_dir=tmp_path / "tfds")
    assert not builder.is_prepared()
    with pytest.raises(FileNotFoundError, match="not built"):
        datasets.open_split(builder, "train")


def test_all_faults_in_one_error(tmp_path):
    folder = write(tmp_path / "raw", "astmt")
    for name in ("depth/0001.mat", "edge/0002.png", "images/0010.jpg"):  # the last in another split
        (folder / name).unlink()
    replace("segmentation/0011.mat", mat(segmentation=SEG + 100))(folder)
    with pytest.raises(ValueError, match="4 problem") as error:
        build("astmt", tmp_path / "tfds", tmp_path / "raw")
    for name in ("depth/0001.mat", "edge/0002.png", "images/0010.jpg", "segmentation/0011.mat"):
        assert name in str(error.value)


def test_long_lists_are_cut(tmp_path):
    folder = write(tmp_path / "raw", "astmt", {"train": [f"{i:04}" for i in range(25)], "val": ["0100"]})
    shutil.rmtree(folder / "depth")
    with pytest.raises(ValueError, match=r"26 problem(?s:.)*0019.mat is missing\n  and 6 more, listed in ") as error:
        build("astmt", tmp_path / "tfds", tmp_path / "raw")
    listed = Path(str(error.value).rpartition("listed in ")[2]).read_text().splitlines()
    assert listed == [f"depth/{i:04}.mat is missing" for i in (*range(25), 100)]


def test_full_release_checks_counts_and_size(tmp_path):
    write(tmp_path / "raw", "astmt")
    with pytest.raises(ValueError, match="lists 3 images, expected 795") as error:
        datasets.prepare("nyud_mt/astmt", tmp_path / "tfds", tmp_path / "raw")
    assert "size 48x64, expected 480x640" in str(error.value)


def test_real_frame(tmp_path):
    """NYU Depth v2 image 433, re-encoded into the layout of the first release."""
    folder = SAMPLES / "multi-task-refinenet" / "ExpNYUD_three"
    if not folder.is_dir():
        pytest.skip("no real samples beside the checkout (shared/data/nyud_samples)")
    image = cv2.imread(str(folder / "000433.png"))[..., ::-1]
    semseg = cv2.imread(str(folder / "segm_gt_000433.png"), cv2.IMREAD_UNCHANGED)
    depth = cv2.imread(str(folder / "depth_gt_000433.png"), cv2.IMREAD_UNCHANGED) / np.float32(5000)
    normals = cv2.imread(str(folder / "norm_gt_000433.png"))[..., ::-1] / np.float32(127.5) - 1
    raw = np.where(semseg == 255, 0, semseg + 1).astype(np.uint8)
    edge = (cv2.Laplacian(raw, cv2.CV_64F) != 0).astype(np.uint8)
    x = {"image": image, "semseg": raw, "depth": depth, "normals": normals, "edge": edge}
    write(tmp_path / "raw", "astmt", {"train": ["433"], "val": ["434"]}, frames=lambda _: x)
    source = datasets.open_split(build("astmt", tmp_path / "tfds", tmp_path / "raw"), "train")
    got = records.decode(source[0], ("semseg", "normals", "edge", "depth"))
    assert got["id"] == "433"
    assert got["image"].shape == (480, 640, 3)
    assert np.abs(got["image"].astype(int) - image).mean() < 3  # JPEG
    np.testing.assert_array_equal(got["semseg"][..., 0], semseg)
    np.testing.assert_array_equal(got["depth"][..., 0], depth)
    np.testing.assert_array_equal(got["edge"][..., 0], edge)
    assert np.median(np.abs(got["normals"] - normals)) < 0.03  # JPEG
    assert 0.5 < np.median(got["depth"][got["depth"] > 0]) < 10
