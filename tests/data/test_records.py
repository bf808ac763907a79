"""Decoding records, the registry of data sets, opening prepared ones."""

import pickle
import threading
import zlib

import cv2
import numpy as np
import pytest

from mtl_jax import data
from mtl_jax.codecs import pictures
from mtl_jax.data import augmentation, catalogue, loader, records
from tests import nyud_release as files

NYUD = catalogue.FAMILIES["nyud"]
PASCAL_LABELS = catalogue.FAMILIES["pascal"]

H, W = 20, 30
ALL = ("semseg", "human_parts", "sal", "normals", "edge", "depth")


def png(x):
    return cv2.imencode(".png", x)[1].tobytes()


def stored(size=(H, W)):
    rng = np.random.default_rng(0)
    return {
        "id": b"2008_000001",
        "image": cv2.imencode(".jpg", rng.integers(0, 256, (H, W, 3), dtype=np.uint8))[1].tobytes(),
        "semseg": png(rng.choice(np.array([0, 7, 255], np.uint8), size)),
        "human_parts": png(rng.integers(0, 7, size, dtype=np.uint8)),
        "sal": png(rng.choice(np.array([0, 127, 128, 255], np.uint8), size)),
        "edge": png(rng.choice(np.array([0, 51, 255], np.uint8), size)),
        "normals": png(rng.integers(0, 256, (*size, 3), dtype=np.uint8)),
        "depth": rng.uniform(0, 9, (*size, 1)).astype(np.float32),
    }


def test_decode():
    record = stored()
    got = records.decode(record, ALL)
    assert got.pop("id") == "2008_000001"
    assert {key: (x.shape, x.dtype) for key, x in got.items()} == {
        "image": ((H, W, 3), np.uint8),
        "semseg": ((H, W, 1), np.uint8),
        "human_parts": ((H, W, 1), np.uint8),
        "sal": ((H, W, 1), np.float32),
        "normals": ((H, W, 3), np.float32),
        "edge": ((H, W, 1), np.float32),
        "depth": ((H, W, 1), np.float32),
    }
    grey = cv2.imdecode(np.frombuffer(record["sal"], np.uint8), -1)[..., None]
    np.testing.assert_array_equal(got["sal"], grey >= 128)
    assert set(np.unique(got["semseg"])) == {0, 7, 255}
    np.testing.assert_allclose(np.unique(got["edge"]), [0, 0.2, 1])
    coded = cv2.imdecode(np.frombuffer(record["normals"], np.uint8), -1)[..., ::-1]
    np.testing.assert_allclose(got["normals"], coded * (2 / 255) - 1, atol=1e-6)
    assert list(records.decode(record, ("depth",))) == ["id", "image", "depth"]


def test_arrays_pass():
    record = stored()
    record["image"] = pictures.decode(record["image"], 3)
    record["normals"] = records.decode(record, ("normals",))["normals"]
    again = records.decode(record, ("normals",))
    np.testing.assert_array_equal(again["image"], record["image"])
    np.testing.assert_array_equal(again["normals"], record["normals"])


def test_label_sizes():
    """PASCAL's labels are fitted to the image; NYUD's must fit."""
    record = stored((H // 2, W // 2))
    got = records.decode(record, ALL, conventions=PASCAL_LABELS)
    assert all(got[name].shape[:2] == (H, W) for name in ALL)
    assert got["normals"].dtype == np.float64
    assert set(np.unique(got["semseg"])) == {0, 7, 255}
    with pytest.raises(ValueError, match="label 'semseg' is 10x15, the image 20x30"):
        records.decode(record, ALL, conventions=NYUD)


def test_camera_orientation_is_not_applied():
    """An EXIF tag "turn by 90 degrees" would turn the image away from its labels."""
    jpeg = stored()["image"]
    tiff = b"MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
    app1 = b"Exif\x00\x00" + tiff
    turned = jpeg[:2] + b"\xff\xe1" + (len(app1) + 2).to_bytes(2, "big") + app1 + jpeg[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape == (W, H, 3)
    np.testing.assert_array_equal(pictures.decode(turned, 3), pictures.decode(jpeg, 3))


def test_palette_png_gives_indices():
    """Label maps are often stored with a colour map for viewing."""
    ids = np.random.default_rng(0).integers(0, 41, (H, W), dtype=np.uint8)
    grey = png(ids)

    def chunk(content):
        return (len(content) - 4).to_bytes(4, "big") + content + zlib.crc32(content).to_bytes(4, "big")

    colours = np.random.default_rng(1).integers(0, 256, 768, dtype=np.uint8).tobytes()
    palette = grey[:8] + chunk(grey[12:25] + b"\x03" + grey[26:29]) + chunk(b"PLTE" + colours) + grey[33:]
    assert cv2.imdecode(np.frombuffer(palette, np.uint8), cv2.IMREAD_UNCHANGED).shape == (H, W, 3)
    np.testing.assert_array_equal(pictures.decode(palette, 1)[..., 0], ids)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": b""}, "'image' is corrupt: it is empty"),
        ({"image": b"abcdefghij"}, "'image' is corrupt: it is no image"),
        ({"image": stored()["image"][:-2]}, "the JPEG ends early"),
        ({"semseg": stored()["semseg"][:-20]}, "'semseg' is corrupt: the PNG ends early"),
        ({"semseg": stored()["normals"]}, "it has 3 channels, expected 1"),
        ({"depth": np.zeros((H, W))}, r"'depth' has shape \(20, 30\), expected \[H, W, 1\]"),
        ({"depth": np.zeros((0, W, 1))}, r"'depth' has shape \(0, 30, 1\), expected \[H, W, 1\]"),
        ({"depth": np.zeros((H, W + 1, 1))}, "label 'depth' is 20x31, the image 20x30"),
        ({"labelled": b"depth\xff"}, "the text 'labelled' is corrupt: .* can't decode byte 0xff"),
    ],
)
def test_errors_say_where(change, message):
    with pytest.raises(records.CorruptRecordError, match=message) as error:
        records.decode(stored() | change, ALL, where="nyud_mt/astmt, split val, record 7")
    error.match(r"^nyud_mt/astmt, split val, record 7 \(id '2008_000001'\): ")
    error.match(r"\. Delete the prepared data set and build it again from intact files")


def test_broken_id():
    with pytest.raises(records.CorruptRecordError, match=r"^record 7: the text 'id' is corrupt: .* decode byte 0xff"):
        records.decode(stored() | {"id": b"2008\xff"}, ALL, where="record 7")


@pytest.mark.parametrize("labelled", ["semseg depth", b"depth semseg other", "", b""])
def test_labelled(labelled):
    """Only what is named counts: the other maps are not even decoded."""
    record = stored() | {"labelled": labelled, "edge": b"no image"}
    want = [name for name in ("semseg", "depth") if name in records.as_text(labelled).split()]
    got = records.decode(record, ("semseg", "edge", "depth"))
    assert list(got) == ["id", "image", *want]
    for name in want:
        np.testing.assert_array_equal(got[name], records.decode(stored(), (name,))[name])


def test_labelled_but_not_there():
    record = stored() | {"labelled": "edge"}
    del record["edge"]
    with pytest.raises(ValueError, match="no 'edge' in this data set"):
        records.decode(record, ("edge",))


@pytest.mark.parametrize("family", catalogue.DATASETS)
def test_void_normals(family):
    """The code (0, 0, 0) is no normal in PASCAL; in NYUD's JPEGs it is a colour like any other."""
    conventions = catalogue.get(family).conventions
    assert conventions.normals_void == (family != "nyud")
    code = np.full((H, W, 3), 200, np.uint8)
    code[3, 4], code[5, 6] = 0, (0, 0, 1)
    record = stored() | {"normals": png(code)}
    normals = records.decode(record, ("normals",), conventions=conventions)["normals"]
    assert normals.dtype == conventions.normals_dtype
    assert normals[3, 4].tolist() == ([0, 0, 0] if conventions.normals_void else [-1, -1, -1])
    want = code[..., ::-1] * 2.0 / 255 - 1
    want[3, 4] = normals[3, 4]
    np.testing.assert_allclose(normals, want, atol=1e-6 if normals.dtype == np.float32 else 1e-15)


def test_missing_label():
    record = stored()
    del record["edge"]
    with pytest.raises(ValueError, match="no 'edge' in this data set; it has image, semseg, human_parts") as missing:
        records.decode(record, ALL)
    assert not issubclass(missing.type, records.CorruptRecordError)  # no fault of this record


def test_unknown_family():
    with pytest.raises(ValueError, match=r"unknown family of data sets 'x'; the families are .*nyud, pascal"):
        catalogue.FAMILIES["x"]


def test_registry():
    nyud, pascal = catalogue.get("nyud"), catalogue.get("pascal")
    assert nyud.tasks == ("semseg", "normals", "edge", "depth")
    assert pascal.tasks == ("semseg", "human_parts", "sal", "normals", "edge")
    assert (nyud.image_size, pascal.image_size) == ((480, 640), (512, 512))
    assert nyud.builder("survey") == "nyud_mt/survey"
    assert augmentation.get_recipe(nyud.recipe("survey")).resampling.distances_over_scale
    assert pascal.recipe("survey") == nyud.recipe("astmt")
    with pytest.raises(ValueError, match="unknown data set 'kitti'; the data sets are nyud, pascal"):
        catalogue.get("kitti")
    with pytest.raises(ValueError, match="no release 'v3'; the releases are astmt, survey"):
        nyud.builder("v3")


def test_prepare_errors(tmp_path):
    with pytest.raises(ValueError, match="unknown builder 'cityscapes'; the builders are nyud_mt, pascal_mt, folder"):
        data.prepare("cityscapes", tmp_path)
    with pytest.raises(ValueError, match="no config 'v3'; there are nyud_mt/astmt, nyud_mt/survey"):
        data.prepare("nyud_mt/v3", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"the data folder .* cannot be made"):
        data.prepare("nyud_mt/astmt", tmp_path / "a" / "b")


@pytest.mark.parametrize("name", ["..", ".", "../..", "/etc", "a/../..", "a\\b", "a\0b"])
def test_a_builder_never_leaves_the_data_folder(name, tmp_path):
    with pytest.raises(ValueError, match=r"the builder is 'folder_mt/.*without / or .* correct data\.builder"):
        data.prepare(f"folder_mt/{name}", tmp_path / "tfds")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nyud")
    files.write(folder / "raw", "survey")
    return data.prepare("nyud_mt/survey_subset", folder / "tfds", folder / "raw")


def test_open_split(builder):
    split = data.open_split(builder, "train", ("depth",))
    assert len(split) == 3
    assert list(split[1]) == ["id", "image", "depth"]
    assert isinstance(split[1]["image"], bytes)
    assert set(data.open_split(builder, "val")[0]) == {"id", "image", "semseg", "normals", "edge", "depth"}
    with pytest.raises(ValueError, match="no split 'test'; it has train, val"):
        data.open_split(builder, "test")
    with pytest.raises(ValueError, match="no labels for sal; it has semseg, normals, edge, depth"):
        data.open_split(builder, "train", ("sal", "depth"))
    with pytest.raises(IndexError, match="no record 3, there are 3"):
        split[3]


def test_lost_file(tmp_path):
    files.write(tmp_path / "raw", "survey")
    builder = data.prepare("nyud_mt/survey_subset", tmp_path / "tfds", tmp_path / "raw")
    (file,) = tmp_path.rglob("*val.array_record*")
    file.unlink()
    with pytest.raises(FileNotFoundError, match=f"has lost {file.name}"):
        data.open_split(builder, "val")
    assert len(data.open_split(builder, "train")) == 3


def test_split_pickles_and_is_read_by_threads(builder):
    split = data.open_split(builder, "train")
    first = records.as_text(split[0]["id"])
    again = pickle.loads(pickle.dumps(split))  # after it was opened
    seen = []
    threads = [threading.Thread(target=lambda: seen.append(records.as_text(again[0]["id"]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [first] * 4


def test_batches_of_a_prepared_data_set(builder):
    """Builder to batch, in this process and in a worker process."""
    kwargs = {
        "conventions": NYUD,
        "tasks": ("depth", "semseg"),
        "size": (48, 64),
        "batch_size": 2,
    }
    got = []
    for num_workers in (0, 1):
        batches = data.train_batches(
            data.open_split(builder, "train"), recipe="survey", seed=0, num_workers=num_workers, **kwargs
        )
        got.append(next(batches))
        batches.close()
    assert got[0]["image"].shape == (2, 48, 64, 3)
    for key in got[0]:
        np.testing.assert_array_equal(got[0][key], got[1][key])
    (only,) = loader.val_batches(data.open_split(builder, "val"), **kwargs)
    assert only["valid"].all()
    source = data.open_split(builder, "val")
    for i in range(2):
        want = records.decode(source[i], ("depth",))["depth"]
        np.testing.assert_array_equal(only["depth"][i], np.where(want == 0, 255, want))


@pytest.mark.parametrize("value", [0.7, -1, 256])
def test_class_ids_that_are_none_are_not_cut_to_bytes(value):
    record = stored() | {"semseg": np.full((H, W, 1), value)}
    with pytest.raises(records.CorruptRecordError, match=r"label 'semseg' holds .*, expected class ids, whole numbers"):
        records.decode(record, ("semseg",))
