"""Built data sets with damaged small files, which say what the records mean."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from mtl_jax.data import built, datasets, folder
from tests import nyud_release
from tests.data import own_folder

TOML = '[tasks.semseg]\nclasses = ["wall", "floor"]\n[tasks.depth]\nsuffix = ".npy"\n'
LABELS = {
    "semseg.png": own_folder.encoded(np.ones((own_folder.H, own_folder.W, 1), np.uint8)),
    "depth.npy": own_folder.encoded(np.ones((own_folder.H, own_folder.W), np.float32), ".npy"),
}
SMALL = ("dataset_info.json", "features.json", "metadata.json", built.NOTE)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """(name of the builder, folder of the built data sets, folder of the original files)"""
    path = tmp_path_factory.mktemp("own")
    root = own_folder.write(path / "raw", TOML, LABELS)
    own_folder.build(root, path / "tfds")
    return "folder_mt/own", path / "tfds", root


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    path = tmp_path_factory.mktemp("nyud")
    nyud_release.write(path / "raw", "survey")
    nyud_release.build("survey", path / "tfds", path / "raw")
    return "nyud_mt/survey_subset", path / "tfds", None


@pytest.fixture(params=["own", "released"])
def data_set(request, tmp_path):
    """A copy of one of the data sets: name, folder of the data sets, folder of original files, folder of this one."""
    name, data_dir, root = request.getfixturevalue(request.param)
    shutil.copytree(data_dir, tmp_path / "tfds")
    (features,) = (tmp_path / "tfds").rglob("features.json")
    return name, tmp_path / "tfds", root, features.parent


def meaning(builder):
    """What a data set says about itself, and its first record."""
    features = {
        key: (feature.shape, np.dtype(feature.np_dtype).name) for key, feature in sorted(builder.info.features.items())
    }
    splits = {name: (split.num_examples, split.filenames) for name, split in builder.info.splits.items()}
    record = {key: np.asarray(value).tolist() for key, value in datasets.open_split(builder, "train")[0].items()}
    return features, splits, json.dumps(dict(builder.info.metadata or {}), sort_keys=True), record


def ways(name, data_dir, root):
    """The calls that open a built data set."""
    yield lambda: datasets.make_builder(name, data_dir)
    yield lambda: datasets.prepare(name, data_dir, root)
    if root is not None:
        yield lambda: datasets.make_builder(name, data_dir, root)


def flipped(content, rng):
    damaged = bytearray(content)
    damaged[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def test_a_note_is_written_at_building(data_set):
    name, data_dir, root, path = data_set
    noted = json.loads((path / built.NOTE).read_text())
    assert set(noted) == {file.name for file in path.glob("*.json")} - {built.NOTE}
    assert len({str(meaning(way())) for way in ways(name, data_dir, root)}) == 1


@pytest.mark.parametrize("file", SMALL)
def test_damage_is_an_error_and_never_another_meaning(data_set, file):
    name, data_dir, root, path = data_set
    opened = datasets.open_split(datasets.make_builder(name, data_dir), "train")  # reads nothing yet
    builder = datasets.make_builder(name, data_dir)
    content, rng = (path / file).read_bytes(), random.Random(file)
    for _ in range(20):
        (path / file).write_bytes(flipped(content, rng))
        for way in (*ways(name, data_dir, root), lambda: datasets.open_split(builder, "train"), lambda: opened[0]):
            with pytest.raises(ValueError, match=r"is damaged \(") as error:
                way()
            # A flip in the note is found at the file that it is about.
            assert str(error.value).startswith(str(path))
            assert file in str(error.value)
            error.match(f"Delete the folder {path} and build the data set again$")
    (path / file).write_bytes(content)
    assert len(opened[0]) == len(datasets.open_split(builder, "train")[0])


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json", "metadata.json"])
def test_a_lost_file_is_named(data_set, file):
    name, data_dir, root, path = data_set
    (path / file).unlink()
    for way in ways(name, data_dir, root):
        with pytest.raises(ValueError, match=f"{file} is damaged .*Delete the folder {path}"):
            way()


@pytest.mark.parametrize("file", ["originals.json.gz", "originals_accepted.json"])
def test_damaged_notes_of_original_files_change_nothing(own, tmp_path, file):
    """The contents of the files are compared again, or not: the hash of names, sizes and times tells enough."""
    name, data_dir, root = own
    shutil.copytree(data_dir, tmp_path / "tfds")
    (path,) = (features.parent for features in (tmp_path / "tfds").rglob("features.json"))
    if file == "originals_accepted.json":
        (path / file).write_text(json.dumps(["0" * 64]))
    content, rng = (path / file).read_bytes(), random.Random(file)
    expected = meaning(datasets.prepare(name, tmp_path / "tfds", root))
    for _ in range(20):
        (path / file).write_bytes(flipped(content, rng))
        assert meaning(datasets.prepare(name, tmp_path / "tfds", root)) == expected


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json", "metadata.json"])
def test_data_sets_of_older_versions(data_set, file):
    """They have no note, open as before, and fail without foreign errors where damage shows."""
    name, data_dir, root, path = data_set
    (path / built.NOTE).unlink()
    assert len({str(meaning(way())) for way in ways(name, data_dir, root)}) == 1
    assert not (path / built.NOTE).exists()
    content, rng, refused = (path / file).read_bytes(), random.Random(file), 0
    for _ in range(40):
        (path / file).write_bytes(flipped(content, rng))
        for way in ways(name, data_dir, root):
            message = ""
            try:
                datasets.open_split(way(), "train", ())
            except (ValueError, FileNotFoundError) as error:
                message = str(error)
            refused += bool(message)
            assert not message or str(path) in message or "has no split 'train'" in message
    assert refused > 10


def test_a_folder_without_a_data_set(tmp_path):
    """Building would take it for the data set."""
    path = tmp_path / "nyud_mt" / "survey_subset" / "1.1.0"
    path.mkdir(parents=True)
    with pytest.raises(ValueError, match=r"dataset_info.json is damaged \(it is missing\)\. Delete the folder"):
        datasets.prepare("nyud_mt/survey_subset", tmp_path)
    with pytest.raises(FileNotFoundError, match="no data set is built in"):
        built.open_built(tmp_path / "elsewhere")


def test_errors_that_are_no_damage_stay_as_they_are(own, monkeypatch):
    name, data_dir, root = own

    def broken(*args, **kwargs):
        raise KeyError("of the builder itself")

    monkeypatch.setattr(folder.FolderMt, "labels", broken)
    with pytest.raises(KeyError, match="of the builder itself"):
        datasets.make_builder(name, data_dir, root)


def test_every_registered_folder_is_where_the_builder_has_it(released):
    name, data_dir, _ = released
    builder = datasets.make_builder(name, data_dir)
    assert datasets._folder(type(builder), "survey_subset", data_dir) == Path(builder.data_path)
    for other in ("nyud_mt", "pascal_mt", "rendered_scenes"):
        plain = datasets.make_builder(other, data_dir)
        assert datasets._folder(type(plain), "", data_dir) == Path(plain.data_path)
