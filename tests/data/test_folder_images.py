"""Folders of one's own: copies of a folder, what changed in it, and images that are not plain."""

import gzip
import io
import json
import os
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from mtl_jax.codecs import pictures
from mtl_jax.data import datasets, originals, staging
from mtl_jax.inference import predict

H, W = 32, 40
IDS = {"train": ["a", "b", "c"], "val": ["d"]}
TOML = 'name = "own"\nimage_size = [32, 32]\n[tasks.depth]\n'
LATER = 5  # seconds


def picture(key):
    return np.random.default_rng(ord(key)).integers(0, 256, (H, W, 3), np.uint8)


def depth(key):
    return np.random.default_rng(ord(key)).integers(1, 2000, (H, W, 1), np.uint16)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "raw"
    for name in ("images", "depth", "splits"):
        (folder / name).mkdir(parents=True)
    (folder / "dataset.toml").write_text(TOML)
    for split, keys in IDS.items():
        (folder / "splits" / f"{split}.txt").write_text("\n".join(keys))
        for key in keys:
            (folder / "images" / f"{key}.png").write_bytes(pictures.encode_png(picture(key)))
            (folder / "depth" / f"{key}.png").write_bytes(pictures.encode_png(depth(key)))
    return folder


def build(root, data_dir):
    return datasets.prepare("folder_mt/own", data_dir, root)


def copy(root, target):
    """A copy with other modification times, as `cp -r` makes it."""
    shutil.copytree(root, target)
    for path in target.rglob("*"):
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + LATER * 10**9))
    return target


@pytest.fixture
def hashed(monkeypatch):
    """The files whose contents are read to be compared."""
    names = []
    digest = originals._digest

    def spy(root, state):
        names.append(state[0])
        return digest(root, state)

    monkeypatch.setattr(originals, "_digest", spy)
    return names


def test_a_copy_is_the_same_folder(root, tmp_path, hashed):
    built = Path(build(root, tmp_path / "tfds").data_path)
    assert sorted(hashed) == sorted(f"{folder}/{key}.png" for folder in ("images", "depth") for key in "abcd")
    hashed.clear()
    other = copy(root, tmp_path / "copy")
    assert Path(build(other, tmp_path / "tfds").data_path) == built
    assert len(hashed) == 8
    hashed.clear()
    build(other, tmp_path / "tfds")  # it is known by now
    build(root, tmp_path / "tfds")
    assert not hashed
    build(copy(other, tmp_path / "second copy"), tmp_path / "tfds")
    build(other, tmp_path / "tfds")
    assert len(hashed) == 8


def test_only_files_with_another_time_are_read(root, tmp_path, hashed):
    build(root, tmp_path / "tfds")
    hashed.clear()
    os.utime(root / "depth" / "b.png", (1, 1))
    build(root, tmp_path / "tfds")
    assert hashed == ["depth/b.png"]


def test_a_data_set_that_cannot_be_written_to(root, tmp_path, hashed):
    built = Path(build(root, tmp_path / "tfds").data_path)
    (built / originals._ACCEPTED).mkdir()  # it can be neither read nor replaced
    other = copy(root, tmp_path / "copy")
    hashed.clear()
    for _ in range(2):
        build(other, tmp_path / "tfds")
    assert len(hashed) == 16


def test_a_damaged_cache_is_no_proof(root, tmp_path):
    builder = build(root, tmp_path / "tfds")
    for i, content in enumerate((b"\x00", b"{}", b'[1, "x"]', b"3")):
        (Path(builder.data_path) / originals._ACCEPTED).write_bytes(content)
        build(copy(root, tmp_path / f"copy {i}"), tmp_path / "tfds")
        (root / "depth" / "a.png").write_bytes(pictures.encode_png(depth("x"))[:-1] + b"x")
        with pytest.raises(ValueError, match="has changed"):
            build(root, tmp_path / "tfds")
        (root / "depth" / "a.png").write_bytes(pictures.encode_png(depth("a")))


def same_size(root):
    path = root / "depth" / "c.png"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def other_lists(root):
    (root / "splits" / "train.txt").write_text("b\na\ne\n")
    (root / "splits" / "val.txt").write_text("d\n")


CHANGES = {  # what changes -> (the change, what the error says)
    "content": (same_size, r"tfds/folder_mt/own/1.0.0: 1 changed file\(s\) \(depth/c.png\)\. Delete"),
    "size": (
        lambda root: (root / "images" / "b.png").write_bytes(b"x"),
        r": 1 changed file\(s\) \(images/b.png\)\. Delete",
    ),
    "missing": (
        lambda root: [(root / "depth" / f"{key}.png").unlink() for key in "abcd"],
        r": 4 missing file\(s\) \(depth/a.png, depth/b.png, depth/c.png, \.\.\.\)\. Delete",
    ),
    "new": (
        lambda root: shutil.copy(root / "images" / "a.png", root / "images" / "a.jpg"),
        r": 1 new file\(s\) \(images/a.jpg\)\. Delete",
    ),
    "lists": (
        other_lists,
        r": splits/train.txt has 1 new id\(s\) \(e\) and 1 id\(s\) fewer \(c\); 2 missing file\(s\) \(images/c",
    ),
    "order": (
        lambda root: (root / "splits" / "train.txt").write_text("b\na\nc"),
        r": splits/train.txt has another order\. Delete",
    ),
    "splits": (
        lambda root: [
            (root / "splits" / name).write_text(text) for name, text in (("train.txt", "a\nb"), ("val.txt", "c\nd"))
        ],
        r": splits/train.txt has 1 id\(s\) fewer \(c\); splits/val.txt has 1 new id\(s\) \(c\)\. Delete",
    ),
    "description": (
        lambda root: (root / "dataset.toml").write_text(TOML.replace("[32, 32]", "[64, 32]") + "unit = 0.01\n"),
        r": dataset.toml differs in image_size, depth\. Delete",
    ),
}


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_the_error_says_what_changed(root, tmp_path, change, copied):
    edit, message = CHANGES[change]
    build(root, tmp_path / "tfds")
    if copied:
        root = copy(root, tmp_path / "copy")
    edit(root)
    with pytest.raises(ValueError, match=message):
        build(root, tmp_path / "tfds")


@pytest.mark.parametrize("damaged", [False, True])
def test_data_sets_of_older_versions(root, tmp_path, damaged):
    """They are accepted where times agree; nothing is known of their contents."""
    file = Path(build(root, tmp_path / "tfds").data_path) / originals._FILE
    if damaged:
        file.write_bytes(gzip.compress(b'{"files": [1]}'))
    else:
        file.unlink()
    build(root, tmp_path / "tfds")
    with pytest.raises(ValueError, match="a list, name, size or time; the version that built it did not note which"):
        build(copy(root, tmp_path / "copy"), tmp_path / "tfds")


def test_a_file_that_changes_while_the_data_set_is_built(root, tmp_path, monkeypatch):
    """Nobody knows which content its record has."""
    write = originals.write

    def late(*args):
        write(*args)
        same_size(root)
        os.utime(root / "depth" / "c.png", (9, 9))

    monkeypatch.setattr(originals, "write", late)
    with pytest.raises(ValueError, match=r"a file of the ids a to c in .*raw has changed while the data set was built"):
        build(root, tmp_path / "tfds")


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def twelve_bits(declared):
    values = picture("x").astype(np.uint16) * 16 + 7
    png = pictures.encode_png(values)
    chunk = b"\x00\x00\x00\x03sBIT\x0c\x0c\x0c"
    return png[:33] + chunk + zlib.crc32(chunk[4:]).to_bytes(4, "big") + png[33:] if declared else png


def test_plain_tfds_returns_three_channels(root, tmp_path):
    """Each of these images has other channels in its file."""
    image = Image.fromarray(picture("x"))
    alpha = image.copy()
    alpha.putalpha(7)
    files = {
        "a": saved(image.convert("L"), "png"),
        "b": saved(alpha, "png"),
        "c": saved(image.quantize(16), "png"),
        "d": twelve_bits(declared=True),
    }
    for key, data in files.items():
        (root / "images" / f"{key}.png").write_bytes(data)
    builder = build(root, tmp_path / "tfds")
    plain = tfds.builder_from_directory(str(builder.data_path))
    for split, keys in IDS.items():
        source = datasets.open_split(builder, split)
        for i, (key, record) in enumerate(zip(keys, plain.as_data_source(split=split), strict=True)):
            assert record["image"].shape == (H, W, 3)
            assert record["image"].dtype == np.uint8
            stored = source.sample(i, (), "folder")["image"]
            np.testing.assert_array_equal(record["image"], stored)
            if key == "d":
                np.testing.assert_array_equal(stored, np.rint((picture("x") * 16.0 + 7) * 255 / 4095))
            else:
                np.testing.assert_array_equal(stored, pictures.decode(files[key], 3))


def test_notes_on_images_are_counted(root, tmp_path, caplog):
    for key in "abd":
        (root / "images" / f"{key}.png").write_bytes(twelve_bits(declared=False))
    build(root, tmp_path / "tfds")
    (line,) = (record.getMessage() for record in caplog.records if "image(s)" in record.getMessage())
    assert line.startswith("folder_mt/own: 3 image(s): the image has values of 16 bits, but none above 4095 (12 bits)")
    assert line.endswith(": a, b, d")


def test_notes_survive_an_interruption(root, tmp_path, caplog):
    """The second build reads the file with the fault alone, in another chunk."""
    keys = [f"{i:02}" for i in range(staging.CHUNK)]
    for key in keys:
        shutil.copy(root / "depth" / "a.png", root / "depth" / f"{key}.png")
        (root / "images" / f"{key}.png").write_bytes(twelve_bits(declared=False))
    (root / "splits" / "train.txt").write_text("\n".join([*keys, "a"]))
    (root / "images" / "a.png").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"images/a\.png"):
        build(root, tmp_path / "tfds")
    assert "image(s)" not in caplog.text
    (root / "images" / "a.png").write_bytes(pictures.encode_png(picture("a")))
    build(root, tmp_path / "tfds")
    assert f"{staging.CHUNK} image(s): the image has values of 16 bits" in caplog.text


def damaged():
    """A JPEG that has lost a part of its data."""
    data = saved(Image.fromarray(picture("x")), "jpeg", quality=95)
    start = data.index(b"\xff\xda") + 20
    return data[:start] + data[start + (len(data) - start) // 2 :]


def test_damage_is_named(root, tmp_path):
    assert pictures.decode(damaged(), 3).shape == (H, W, 3)
    (root / "images" / "b.png").unlink()
    (root / "images" / "b.jpg").write_bytes(damaged())
    with pytest.raises(ValueError, match=r"images/b.jpg: the JPEG is damaged, .*Replace the file"):
        build(root, tmp_path / "tfds")


def test_motion_photos(root, tmp_path):
    (root / "images" / "b.png").unlink()
    photo = saved(Image.fromarray(picture("b")), "jpeg")
    (root / "images" / "b.jpg").write_bytes(photo + b"\x00\x00\x00\x18ftypmp42" + bytes(5000))
    source = datasets.open_split(build(root, tmp_path / "tfds"), "train")
    np.testing.assert_array_equal(source.sample(1, (), "folder")["image"], pictures.decode(photo, 3))


def test_notes_of_predictions(tmp_path, caplog):
    files = {"a.jpg": damaged(), "b.png": twelve_bits(declared=True), "c.png": twelve_bits(declared=False)}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    unreadable = []
    samples = {x["id"]: x["image"] for x in predict.file_samples([tmp_path / name for name in files], unreadable)}
    assert (list(samples), unreadable) == (["a", "b", "c"], [])
    np.testing.assert_array_equal(samples["b"], np.rint((picture("x") * 16.0 + 7) * 255 / 4095))
    assert samples["c"].max() == 15
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert lines[0].startswith("1 image(s): the JPEG is damaged")
    assert lines[0].endswith(f": {tmp_path / 'a.jpg'}")
    assert "none above 4095 (12 bits)" in lines[1]
    assert lines[1].endswith(f": {tmp_path / 'c.png'}")


def test_notes_of_predictions_that_end_early(tmp_path, caplog):
    (tmp_path / "a.jpg").write_bytes(damaged())
    samples = predict.file_samples([tmp_path / "a.jpg"] * 2, [])
    next(samples)
    samples.close()
    assert "the JPEG is damaged" in caplog.text


def test_what_is_noted_of_files(root, tmp_path):
    """Compact: no more than a line for each file."""
    built = Path(build(root, tmp_path / "tfds").data_path)
    noted = json.loads(gzip.decompress((built / originals._FILE).read_bytes()))
    assert noted["ids"] == IDS
    assert set(noted["files"]) == {f"{folder}/{key}.png" for folder in ("images", "depth") for key in "abcd"}
