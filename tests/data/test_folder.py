"""Data sets made from a user's own folder."""

import hashlib
import json
import shutil

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from mtl_jax import experiment
from mtl_jax.codecs import pictures
from mtl_jax.config import Config, Data, from_json, num_channels, to_json, validate
from mtl_jax.data import catalogue, datasets
from mtl_jax.data.loader import train_batches, val_batches
from mtl_jax.metrics import Accumulator
from mtl_jax.tasks import IGNORE

OWN = catalogue.FAMILIES["folder"]

H, W = 40, 56
IDS = {"train": ["a", "b", "c"], "val": ["d", "e"]}
TASKS = ("semseg", "sal", "normals", "edge", "depth")
TOML = """
name = "own"
image_size = [32, 48]
[tasks.semseg]
classes = ["floor", "wall", "cup"]
first_id = 1
ignore = [0]
[tasks.sal]
[tasks.normals]
suffix = "NORMALS"
[tasks.edge]
[tasks.depth]
unit = 0.01
"""


def maps(key):
    """Raw labels of an image."""
    rng = np.random.default_rng(ord(key))
    normals = rng.normal(size=(H, W, 3)).astype(np.float32)
    return {
        "image": cv2.resize(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8), (W, H)),
        "semseg": rng.integers(0, 4, (H, W, 1), dtype=np.uint8),
        "sal": rng.integers(0, 2, (H, W, 1), dtype=np.uint8) * 255,
        "normals": normals / np.linalg.norm(normals, axis=2, keepdims=True),
        "edge": rng.integers(0, 2, (H, W, 1), dtype=np.uint8) * 255,
        "depth": rng.integers(0, 900, (H, W, 1), dtype=np.uint16),
    }


def write(root, normals=".png", ids=IDS, text=TOML):
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.toml").write_text(text.replace("NORMALS", normals))
    for folder in ("images", "splits", *TASKS):
        (root / folder).mkdir()
    for split, keys in ids.items():
        (root / "splits" / f"{split}.txt").write_text("\n".join(keys))
        for key in keys:
            for name, value in maps(key).items():
                if name == "normals" and normals == ".npy":
                    np.save(root / name / f"{key}.npy", value)
                    continue
                if name == "normals":
                    value = np.rint((value + 1) * 127.5).astype(np.uint8)
                    value[:2] = 127  # no vector
                folder = "images" if name == "image" else name
                (root / folder / f"{key}.png").write_bytes(pictures.encode_png(value))
    return root


def build(root, data_dir):
    return datasets.prepare("folder_mt/own", data_dir, root)


@pytest.mark.parametrize("normals", [".png", ".npy"])
def test_values(tmp_path, normals):
    root = write(tmp_path / "raw", normals)
    builder = build(root, tmp_path / "tfds")
    for split, keys in IDS.items():
        source = datasets.open_split(builder, split)
        assert source.tasks == TASKS
        for i, key in enumerate(keys):
            got, want = source.sample(i, TASKS, OWN), maps(key)
            assert got["id"] == key
            np.testing.assert_array_equal(got["image"], want["image"])
            semseg = want["semseg"].astype(int)
            np.testing.assert_array_equal(got["semseg"], np.where(semseg == 0, IGNORE, semseg - 1))
            np.testing.assert_allclose(got["depth"], want["depth"] * 0.01, rtol=1e-6)
            np.testing.assert_array_equal(got["sal"] * 255, want["sal"])
            np.testing.assert_array_equal(got["edge"] * 255, want["edge"])
            if normals == ".npy":
                np.testing.assert_array_equal(got["normals"], want["normals"])
            else:
                np.testing.assert_allclose(got["normals"][2:], want["normals"][2:], atol=1 / 127)
                assert not got["normals"][:2].any()


def test_unlabelled_images_are_kept(tmp_path):
    root = write(tmp_path / "raw")
    for name in ("semseg/a", "sal/a", "normals/a", "edge/a", "depth/b", "depth/d"):
        (root / f"{name}.png").unlink()
    builder = build(root, tmp_path / "tfds")
    assert datasets.labelled(builder) == {
        **{task: {"train": [1, 2], "val": [0, 1]} for task in ("semseg", "sal", "normals", "edge")},
        "depth": {"train": [0, 2], "val": [1]},
    }
    train = datasets.open_split(builder, "train")
    assert set(train.sample(0, TASKS, OWN)) == {"id", "image", "depth"}
    options = {"conventions": OWN, "tasks": TASKS, "size": (32, 48), "batch_size": 3}
    batch = next(train_batches(train, recipe="astmt", seed=0, **options))
    first = int(np.flatnonzero(batch["index"] == 0)[0])
    for task in TASKS:
        assert (batch[task][first] == IGNORE).all() == (task != "depth"), task
    (batch,) = val_batches(datasets.open_split(builder, "val"), **options)
    assert (batch["depth"][0] == IGNORE).all()
    assert not (batch["depth"][1] == IGNORE).all()
    plain = tfds.builder_from_directory(str(builder.data_path)).as_data_source(split="train")
    assert plain[0]["semseg"].shape == (H, W, 1)
    assert (plain[0]["semseg"] == IGNORE).all()

    alone = datasets.open_split(builder, "train", ("depth",), only_labelled=True)
    assert [alone.sample(i, ("depth",), OWN)["id"] for i in range(len(alone))] == ["a", "c"]
    both = datasets.open_split(builder, "train", ("depth", "edge"), only_labelled=True)
    assert len(both) == 3


def replace(name, value):
    def edit(root):
        path = root / name
        path.write_bytes(value) if value is not None else path.unlink()

    return edit


def both_images(root):
    shutil.copy(root / "images" / "a.png", root / "images" / "a.jpg")


def no_label(root):
    for task in TASKS:
        (root / task / "c.png").unlink()


FAULTS = {
    "no image": (replace("images/a.png", None), r"images/a.jpg \(or .jpeg, .png\) is missing"),
    "two images": (both_images, "images/a.jpg and images/a.png are all there; leave one"),
    "truncated": (replace("images/a.png", b"\x89PNG\r\n\x1a\n123"), "images/a.png: the PNG ends early"),
    "no label": (no_label, "id 'c' has no label of any task"),
    "class": (
        replace("semseg/b.png", pictures.encode_png(np.full((H, W, 1), 7, np.uint8))),
        r"semseg/b.png: class ids 7, expected 1 to 3 \(3 classes\), 0 \(ignored\)",
    ),
    "size": (
        replace("depth/b.png", pictures.encode_png(np.ones((H, W + 1, 1), np.uint16))),
        "depth/b.png: size 40x57, the image images/b.png is 40x56",
    ),
    "depth": (
        replace("depth/b.png", pictures.encode_png(np.full((H, W, 1), 60000, np.uint16))),
        "values from 600 to 600, expected 0 to 254",
    ),
    "normals": (
        replace("normals/b.png", pictures.encode_png(np.full((H, W, 3), 230, np.uint8))),
        "normals/b.png: only 0% of the vectors have length 1",
    ),
    "foreground": (
        replace("sal/b.png", pictures.encode_png(np.eye(H, W, dtype=np.uint8))),
        "sal/b.png: its values are 0, 1, and it is not clear",
    ),
    "archive": (replace("normals/b.png", b"PK\x03\x04"), "normals/b.png: it is no PNG"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(tmp_path, fault):
    edit, message = FAULTS[fault]
    root = write(tmp_path / "raw")
    edit(root)
    with pytest.raises(ValueError, match=message):
        build(root, tmp_path / "tfds")


def test_missing_folder(tmp_path):
    root = write(tmp_path / "raw")
    shutil.rmtree(root / "depth")
    with pytest.raises(FileNotFoundError, match=r"has no folder depth; make it, or correct dataset.toml there"):
        build(root, tmp_path / "tfds")


def test_changed_folder_is_noticed(tmp_path):
    root = write(tmp_path / "raw")
    builder = build(root, tmp_path / "tfds")
    build(root, tmp_path / "tfds")
    (root / "depth" / "a.png").write_bytes(pictures.encode_png(np.ones((H, W, 1), np.uint16)))
    with pytest.raises(ValueError, match="has changed since it was built in"):
        build(root, tmp_path / "tfds")
    shutil.rmtree(builder.data_path)
    source = datasets.open_split(build(root, tmp_path / "tfds"), "train")
    np.testing.assert_allclose(source.sample(0, ("depth",), OWN)["depth"], 0.01)


def test_built_data_needs_no_folder(tmp_path):
    root = write(tmp_path / "raw")
    build(root, tmp_path / "tfds")
    shutil.rmtree(root)
    assert len(datasets.open_split(datasets.prepare("folder_mt/own", tmp_path / "tfds"), "train")) == 3
    with pytest.raises(FileNotFoundError, match=r"folder_mt/other is not built in .*--data.manual_dir=DIR"):
        datasets.prepare("folder_mt/other", tmp_path / "tfds")


def test_resolved_configuration(tmp_path):
    root = write(tmp_path / "raw")
    config = validate(experiment.resolve(Config(Data("folder", manual_dir=str(root)))))
    assert config.data.tasks == TASKS
    assert experiment.make(config).builder_name == "folder_mt/own"
    assert experiment.make(config).image_size == (32, 48)
    assert num_channels(config, TASKS) == {"semseg": 3, "sal": 1, "normals": 3, "edge": 1, "depth": 1}
    assert from_json(to_json(config), "here") == config
    assert json.loads(to_json(config))["data"]["class_names"] == {"semseg": ["floor", "wall", "cup"]}
    fewer = experiment.resolve(Config(Data("folder", ("depth",), manual_dir=str(root), image_size=(64, 64))))
    assert (fewer.data.tasks, fewer.data.class_names, fewer.data.image_size) == (("depth",), {}, (64, 64))


def test_configurations_that_do_not_fit(tmp_path):
    root = write(tmp_path / "raw")
    with pytest.raises(ValueError, match=r"data.manual_dir is empty; give the folder that has dataset.toml"):
        experiment.resolve(Config(Data("folder")))
    with pytest.raises(ValueError, match=r"name human_parts, but .* has semseg, sal, normals, edge, depth"):
        experiment.resolve(Config(Data("folder", ("human_parts",), manual_dir=str(root))))
    with pytest.raises(ValueError, match="number of classes of semseg is not known"):
        validate(Config(Data("folder", ("semseg",), builder="folder_mt/own", image_size=(64, 64))))


def test_corrected_description_is_used(tmp_path):
    """What an earlier build read under another description is not used."""
    ids = {"train": [chr(ord("A") + i) for i in range(16)], "val": ["d"]}
    text = TOML.replace("first_id = 1\nignore = [0]", "first_id = 0")
    root = write(tmp_path / "raw", ids=ids, text=text)
    with pytest.raises(ValueError, match=r"class ids 3, expected 0 to 2"):
        build(root, tmp_path / "tfds")
    for key in ids["train"]:  # these are read and kept
        (root / "semseg" / f"{key}.png").write_bytes(pictures.encode_png(np.minimum(maps(key)["semseg"], 2)))
    with pytest.raises(ValueError, match=r"1 problem"):
        build(root, tmp_path / "tfds")
    (root / "dataset.toml").write_text(TOML.replace("NORMALS", ".png"))
    source = datasets.open_split(build(root, tmp_path / "tfds"), "train")
    for i, key in enumerate(ids["train"]):
        raw = np.minimum(maps(key)["semseg"], 2).astype(int)
        np.testing.assert_array_equal(source.sample(i, ("semseg",), OWN)["semseg"], np.where(raw == 0, IGNORE, raw - 1))


def test_task_without_any_label(tmp_path):
    root = write(tmp_path / "raw")
    for path in (root / "depth").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="no image has a label of depth; leave the task out, or correct where"):
        build(root, tmp_path / "tfds")


def test_lists(tmp_path):
    root = write(tmp_path / "raw")
    (root / "splits" / "train.txt").write_bytes("\ufeffa\r\n\r\nb\r\n".encode())
    assert len(datasets.open_split(build(root, tmp_path / "tfds"), "train")) == 2
    (root / "splits" / "train.txt").write_text("a\n../b\n/c\nx y\na\n")
    (root / "splits" / "val.txt").write_text("\n")
    with pytest.raises(ValueError, match="problem") as error:
        build(root, tmp_path / "other")
    for part in ("id '../b' is no name", "id '/c' is no name", "images/x y.jpg", "id 'a' is listed more than once"):
        assert part in str(error.value)
    assert "splits/val.txt lists no image" in str(error.value)


def test_ids_in_folders(tmp_path):
    root = write(tmp_path / "raw")
    for folder in ("images", *TASKS):
        (root / folder / "s1").mkdir()
        (root / folder / "a.png").rename(root / folder / "s1" / "a.png")
    (root / "splits" / "train.txt").write_text("s1/a\nb\n")
    source = datasets.open_split(build(root, tmp_path / "tfds"), "train")
    assert source.sample(0, (), OWN)["id"] == "s1/a"


def test_built_data_is_enough_to_train_on(tmp_path):
    root = write(tmp_path / "raw")
    build(root, tmp_path / "tfds")
    shutil.rmtree(root)
    data = Data("folder", ("semseg",), builder="folder_mt/own", data_dir=str(tmp_path / "tfds"))
    config = validate(experiment.resolve(Config(data)))
    assert (config.data.class_names, config.data.image_size) == ({"semseg": ("floor", "wall", "cup")}, (32, 48))
    config.data.class_names["semseg"] = ("floor", "wall", "mug")
    with pytest.raises(ValueError, match=r"the classes of semseg in .* are \('floor', 'wall', 'cup'\), those of the"):
        experiment.make(config).open_split("train", ("semseg",))


def test_auxiliary_tasks_alone(tmp_path):
    root = write(tmp_path / "raw")
    config = validate(experiment.resolve(Config(Data("folder", (), ("depth",), manual_dir=str(root)))))
    assert config.data.tasks == TASKS
    assert num_channels(config, TASKS)["semseg"] == 3


def test_no_description_no_builder(tmp_path):
    with pytest.raises(ValueError, match="folder_mt is made from a folder that describes itself"):
        tfds.builder("folder_mt", data_dir=tmp_path)


def test_class_0_is_a_class(tmp_path):
    """Heads only: what PASCAL's rule takes for an image without people is a label here, in training and in scores."""
    ids = {"train": ["a", "b"], "val": ["d"]}
    text = TOML.replace("[tasks.sal]", '[tasks.human_parts]\nclasses = ["head", "torso"]\nfirst_id = 1\nignore = [0]')
    root = write(tmp_path / "raw", ids=ids, text=text)
    (root / "human_parts").mkdir()
    raw = np.zeros((H, W, 1), np.uint8)
    raw[5:20, 5:20] = 1
    for key in "abd":
        (root / "human_parts" / f"{key}.png").write_bytes(pictures.encode_png(raw))
    config = experiment.resolve(Config(Data("folder", ("human_parts",), manual_dir=str(root), image_size=(H, W))))
    config.data.data_dir = str(tmp_path / "tfds")
    run = experiment.make(config)
    source = run.open_split("val", ("human_parts",))
    options = {"conventions": run.conventions, "tasks": run.main_tasks, "size": (H, W), "recipe": run.recipe}
    (batch,) = val_batches(source, batch_size=1, **options)
    want = np.where(raw == 1, 0, IGNORE)
    np.testing.assert_array_equal(batch["human_parts"][0], want)
    batch = next(train_batches(run.open_split("train", run.all_tasks), batch_size=2, seed=0, **options))
    assert all((label == 0).any() for label in batch["human_parts"])
    zeros = np.zeros((1, H, W, 1), int)
    for metric in (run.final_metrics["human_parts"], run.streaming_metrics["human_parts"]):
        scores = Accumulator(metric)
        scores.update(metric.update(zeros[..., 0], zeros))
        assert scores.compute()["per_class_IoU"][0] == 1
    pascal = experiment.make(Config(Data("pascal", ("human_parts",)))).final_metrics["human_parts"]
    assert not any(counts.any() for counts in pascal.update(zeros[..., 0], zeros).values())


def test_nothing_outside_of_a_rotated_image_has_a_label(tmp_path):
    """Its share is 14 % on average by the default recipe."""
    root = write(tmp_path / "raw", text=TOML.replace("first_id = 1\nignore = [0]", "first_id = 0\nignore = [3]"))
    for folder, value in (("semseg", 1), ("sal", 255), ("edge", 255)):
        for path in (root / folder).iterdir():
            path.write_bytes(pictures.encode_png(np.full((H, W, 1), value, np.uint8)))
    source = datasets.open_split(build(root, tmp_path / "tfds"), "train")
    options = {"tasks": TASKS, "recipe": "astmt", "size": (32, 48), "batch_size": 3, "seed": 0}
    batches = train_batches(source, conventions=OWN, **options)
    found = [next(batches) for _ in range(8)]
    for task in ("semseg", "sal", "edge"):
        labels = np.concatenate([batch[task] for batch in found])
        assert set(np.unique(labels)) == {1, IGNORE}
        assert 0.05 < (labels == IGNORE).mean() < 0.3


@pytest.mark.parametrize("declared", ["", "upright", "stored"])
def test_images_with_an_orientation(tmp_path, declared):
    """A photograph whose pixels lie on their side is refused by name, until the description says how its labels lie."""
    text = f'orientation = "{declared}"\n' * bool(declared) + TOML
    root = write(tmp_path / "raw", text=text)
    seen = maps("a")["image"]
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    (root / "images" / "a.png").unlink()
    pixels = np.rot90(seen) if declared != "stored" else seen
    Image.fromarray(pixels).save(root / "images" / "a.png", exif=exif)
    if not declared:
        with pytest.raises(ValueError, match=r"images/a.png: its EXIF orientation is 6: .* orientation = \"upright\""):
            build(root, tmp_path / "tfds")
        return
    source = datasets.open_split(build(root, tmp_path / "tfds"), "train")
    np.testing.assert_array_equal(source.sample(0, (), OWN)["image"], seen)


@pytest.mark.parametrize("spelled", ["PNG", "Png"])
def test_suffixes_in_any_case(tmp_path, spelled):
    root = write(tmp_path / "raw")
    for folder in ("images", *TASKS):
        (root / folder / "a.png").rename(root / folder / f"a.{spelled}")
    source = datasets.open_split(build(root, tmp_path / "tfds"), "train")
    assert set(source.sample(0, TASKS, OWN)) == {"id", "image", *TASKS}
    np.testing.assert_array_equal(source.sample(0, (), OWN)["image"], maps("a")["image"])


def test_two_spellings_of_a_file(tmp_path):
    root = write(tmp_path / "raw")
    for name in ("images/a", "depth/b"):
        shutil.copy(root / f"{name}.png", root / f"{name}.PNG")
    if len(list((root / "depth").glob("b.*"))) == 1:
        pytest.skip("names of files do not differ by case here")
    with pytest.raises(ValueError, match=r"2 problem") as error:
        build(root, tmp_path / "tfds")
    assert "images/a.png and images/a.PNG are all there; leave one" in str(error.value)
    assert "depth/b.png and depth/b.PNG are all there; leave one" in str(error.value)


def test_links_that_lead_nowhere(tmp_path):
    root = write(tmp_path / "raw")
    for name in ("images/a.png", "depth/b.png"):
        (root / name).unlink()
        (root / name).symlink_to("gone.png")
    (root / "sal" / "c.png").rename(tmp_path / "elsewhere.png")
    (root / "sal" / "c.png").symlink_to(tmp_path / "elsewhere.png")  # a link that leads somewhere is a file
    with pytest.raises(ValueError, match=r"2 problem") as error:
        build(root, tmp_path / "tfds")
    for name in ("images/a.png", "depth/b.png"):
        assert f"{name} is a link to gone.png, which does not exist" in str(error.value)


def test_label_files_of_no_image(tmp_path, caplog):
    """Misnamed files are named, whether or not the task has other labels."""
    root = write(tmp_path / "raw")
    (root / "depth" / "b.png").rename(root / "depth" / "b_depth.png")
    (root / "depth" / "notes.txt").touch()
    assert datasets.labelled(build(root, tmp_path / "tfds"))["depth"]["train"] == [0, 2]
    assert "1 label files of depth" in caplog.text
    assert "belong to no image of the lists, for example depth/b_depth.png" in caplog.text
    for path in sorted((root / "depth").glob("?.png")):
        path.rename(path.with_stem(f"{path.stem}_depth"))
    with pytest.raises(ValueError, match=r"no image has a label of depth; .* for example depth/a_depth\.png\)"):
        build(root, tmp_path / "other")


def test_data_sets_of_version_1_stay_valid(tmp_path):
    """What the description and the spelling of suffixes have learned does not change the hash of an older folder."""
    root = write(tmp_path / "raw")
    (root / "depth" / "b.png").unlink()
    builder = datasets.make_builder("folder_mt/own", tmp_path / "tfds", root)
    labels = {
        task: {"folder": task, "suffix": ".png", "classes": [], "first_id": 0, "ignore": [IGNORE], "unit": 0.001}
        for task in TASKS
    }
    labels["semseg"] |= {"classes": ["floor", "wall", "cup"], "first_id": 1, "ignore": [0]}
    labels["depth"]["unit"] = 0.01
    described = {
        "name": "own",
        "image_size": [32, 48],
        "images": "images",
        "splits": {split: f"splits/{split}.txt" for split in IDS},
        "labels": labels,
    }
    ids, stats = [*IDS["train"], *IDS["val"]], []
    for key in ids:
        files = [f"images/{key}{suffix}" for suffix in (".jpg", ".jpeg", ".png")]
        for path in (root / name for name in (*files, *(f"{task}/{key}.png" for task in TASKS))):
            status = path.stat() if path.exists() else None
            stats.append(status and (str(path.relative_to(root)), status.st_size, status.st_mtime_ns))
    assert builder.source() == hashlib.sha256(json.dumps([described, ids, stats]).encode()).hexdigest()
