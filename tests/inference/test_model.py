"""One call from images to maps, and models that are saved, loaded and shared."""

import json
import logging
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mtl_jax
from mtl_jax import experiment, models, weights
from mtl_jax.config import Model
from mtl_jax.evaluation import result_files
from mtl_jax.inference import model_folder
from mtl_jax.inference.model import from_run
from mtl_jax.train import history, initial_weights
from mtl_jax.train.checkpoint import Checkpoints
from mtl_jax.train.history import History
from tests import tiny

ROOT = Path(__file__).parents[2]
TASKS = ("semseg", "normals", "edge", "depth")


@pytest.fixture(scope="module", autouse=True)
def _tiny_backbones():
    with pytest.MonkeyPatch.context() as patch:
        tiny.register_backbones(patch)
        yield


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run with a prediction of every kind."""
    config = tiny.config(tmp_path_factory.mktemp("no data"))
    config.data.tasks = TASKS
    config.model = Model("baseline", "tiny")
    model = tiny.randomise_batch_norms(models.build(config))
    folder = tmp_path_factory.mktemp("runs") / "run"
    initial_weights.create_workdir(config, folder, weights.to_torch(model))
    return folder


@pytest.fixture(scope="module")
def model(workdir):
    return mtl_jax.load(workdir, "latest")


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    return model.save(tmp_path_factory.mktemp("saved") / "rooms")


def picture(height=64, width=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def assert_close(some, others):
    assert some.keys() == others.keys()
    for task in some:
        np.testing.assert_allclose(some[task].array, others[task].array, atol=1e-5)


def test_maps_have_the_size_of_the_image_and_usual_units(model):
    maps = model(picture(50, 90))
    assert tuple(maps) == TASKS
    assert (maps["semseg"].array.shape, maps["semseg"].array.dtype) == ((50, 90), np.int32)
    assert 0 <= maps["semseg"].array.min() <= maps["semseg"].array.max() < 40
    assert len(maps["semseg"].class_names) == 40
    assert (maps["depth"].array.shape, maps["depth"].array.dtype) == ((50, 90), np.float32)
    assert maps["depth"].meaning == "value in m"
    assert maps["normals"].array.shape == (50, 90, 3)
    np.testing.assert_allclose(np.linalg.norm(maps["normals"].array, axis=-1), 1, atol=1e-5)
    assert maps["normals"].meaning == "unit vector; x right, y forward, z up"
    assert maps["edge"].array.shape == (50, 90)
    assert 0 <= maps["edge"].array.min() <= maps["edge"].array.max() <= 1
    for one in maps.values():
        assert (one.picture().shape, one.picture().dtype) == ((50, 90, 3), np.uint8)


def test_where_nothing_is_resized_the_maps_are_those_of_evaluation(model, workdir):
    from mtl_jax.inference.restored import Restored

    run = Restored(experiment.load_config(workdir), workdir, "latest")
    image = picture()
    batch = {"image": image[None], "index": np.zeros(1, np.int32), "valid": np.ones(1, bool)}
    ((_, expected),) = run.predict_batches([batch])
    for task, one in model(image).items():
        np.testing.assert_allclose(one.kind.as_prediction(one.decided), expected[task], rtol=1e-5, atol=1e-3)


def test_an_image_is_a_path_a_pil_image_or_an_array(model, tmp_path):
    image = picture()
    Image.fromarray(image).save(tmp_path / "x.png")
    wanted = model(image)
    several = model([tmp_path / "x.png", str(tmp_path / "x.png"), Image.fromarray(image), image], batch_size=2)
    assert len(several) == 4
    for maps in several:
        assert_close(maps, wanted)
    grey = picture()[..., 0]
    assert_close(model(grey), model(np.repeat(grey[..., None], 3, axis=2)))
    assert_close(model(grey[..., None]), model(Image.fromarray(grey)))
    assert model([]) == []


def test_a_photo_is_turned_as_its_orientation_says(model, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(picture(32, 64))
    stored.save(tmp_path / "x.png", exif=exif)
    with Image.open(tmp_path / "x.png") as opened:
        assert_close(model(opened), model(tmp_path / "x.png"))
    assert model(tmp_path / "x.png")["depth"].array.shape == (64, 32)


def test_a_note_on_an_image_names_its_file(model, tmp_path, caplog):
    Image.new("RGBA", (40, 40)).save(tmp_path / "glass.png")
    model(tmp_path / "glass.png")
    assert f"{tmp_path / 'glass.png'}: the image has transparent pixels" in caplog.text


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (3, TypeError, "an image is given as int; give a path, a PIL image, or an array of uint8"),
        (picture() / 255, ValueError, "an array of float64"),
        (picture()[None], ValueError, r"the shape \[1, 64, 64, 3\].*; several images are given as a list"),
        (np.zeros((5, 5, 4), np.uint8), ValueError, r"the shape \[5, 5, 4\]"),
        (np.zeros((0, 5, 3), np.uint8), ValueError, "the image is empty"),
        (Image.new("RGBA", (4, 4)), ValueError, r"mode 'RGBA'; convert it .* image\.convert\(\"RGB\"\)"),
        (Image.new("I;16", (4, 4)), ValueError, "mode 'I;16'"),
        ("nowhere.jpg", FileNotFoundError, "the image nowhere.jpg is not there"),
        (".", FileNotFoundError, r"the image \. is a folder; give the images in it as a list"),
        (ROOT / "README.md", ValueError, r"README\.md: it is no image"),
    ],
)
def test_what_is_no_image(model, given, error, message):
    with pytest.raises(error, match=message):
        model(given)


def test_options_are_named(model):
    with pytest.raises(TypeError, match=r"no option 'flipped' of prediction; the options are resize, flip, scales"):
        model(picture(), flipped=True)
    with pytest.raises(ValueError, match="resize is 'crop'"):
        model(picture(), resize="crop")


def test_a_mirrored_image_has_mirrored_maps(model):
    """With the views averaged exactly; normals are mirrored along the axis that points right."""
    image = picture()
    maps, mirrored = (model(x, flip=True) for x in (image, np.ascontiguousarray(image[:, ::-1])))
    for task in TASKS:
        expected = mirrored[task].array[:, ::-1] * ([-1, 1, 1] if task == "normals" else 1)
        wrong = np.abs(maps[task].array - expected) > 1e-4
        assert wrong.mean() < (0.01 if task == "semseg" else 1e-9)
    assert np.abs(model(image)["depth"].array - maps["depth"].array).max() > 1e-3


def test_scales_are_averaged(model):
    image = picture()
    depth = [model(image, scales=scales)["depth"].array for scales in ((0.5,), (1.0,), (1.5,), (0.5, 1.0, 1.5))]
    np.testing.assert_allclose(depth[3], (depth[0] + depth[1] + depth[2]) / 3, atol=1e-4)
    assert np.abs(depth[0] - depth[1]).max() > 1e-3


def test_the_log_tells_of_each_size_once(model, caplog):
    caplog.set_level(logging.INFO, "mtl_jax.runtime")
    for height in (70, 80, 70):
        model(picture(height, 33), resize="none", batch_size=2)
    told = [record.getMessage() for record in caplog.records]
    what = "the network for images of 96x64, 2 at a time"
    assert told[0] == f"compiling {what} ..."
    assert re.fullmatch(rf"{what} (is compiled|was read from the cache of compiled programs) \(\d+ s\)", told[1])
    assert len(told) == 2


def test_a_large_image_in_windows(model):
    maps = model(picture(100, 150), resize="windows", batch_size=2)
    assert maps["normals"].array.shape == (100, 150, 3)
    np.testing.assert_allclose(np.linalg.norm(maps["normals"].array, axis=-1), 1, atol=1e-5)
    same = model(picture(), resize="windows")  # a single window
    for task, one in model(picture()).items():
        np.testing.assert_allclose(same[task].array, one.array, atol=1e-4)


def test_maps_are_saved_in_the_form_of_the_suffix(model, tmp_path):
    maps = model(picture())
    assert maps["depth"].save(tmp_path / "new" / "depth.png").exists()
    np.testing.assert_array_equal(np.load(maps["edge"].save(tmp_path / "edge.npy")), maps["edge"].array)
    with pytest.raises(ValueError, match=r"a map of semseg is saved as \.npy or \.png. For a picture to look at, save"):
        maps["semseg"].save(tmp_path / "x.jpg")


def test_the_example_of_the_documentation(workdir, tmp_path, monkeypatch, capsys):
    """The lines that the README and docs/predict.md show."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(workdir)
    Image.fromarray(picture(50, 90)).save(tmp_path / "photo.jpg")
    page = (ROOT / "docs" / "predict.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(code, "docs/predict.md", "exec"), names)
    assert "depth (50, 90) value in m" in capsys.readouterr().out
    assert sorted(path.stem for path in (tmp_path / "predictions").iterdir()) == sorted(TASKS)
    assert names["depth"].shape == (50, 90)
    assert names["names"][0] == "wall"
    exec(re.findall(r"`(model\.save\(.*?\))`", page)[0], names)
    assert "license: mit" in (tmp_path / "rooms" / "README.md").read_text()


# Saved models


def test_a_saved_model_predicts_the_same(model, saved):
    assert sorted(path.name for path in saved.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "training.json",
    ]
    again = mtl_jax.load(saved)
    assert_close(again(picture(50, 90)), model(picture(50, 90)))
    assert again.class_names == model.class_names
    assert again.image_size == (64, 64)


def test_a_saved_model_names_no_places(saved, workdir):
    config = json.loads((saved / "config.json").read_text())
    assert config["data"]["data_dir"] == config["data"]["manual_dir"] == config["model"]["pretrained"] == ""
    for path in ("config.json", "README.md"):
        assert str(workdir.parents[1]) not in (saved / path).read_text()


def test_places_among_the_options_of_a_model_stay_here(saved, tmp_path):
    config = tiny.config(tmp_path)
    config.data.tasks = ("semseg", "depth")
    config.model = Model("cross_stitch", "tiny", options={"alpha": 0.8, "single_task": "/home/me/{task}"})
    model_folder.write(tmp_path / "x", experiment.make(config), mtl_jax.load(saved).net, history.UNKNOWN, None)
    assert json.loads((tmp_path / "x" / "config.json").read_text())["model"]["options"] == {"alpha": 0.8}


def test_scores_go_with_the_model(workdir, tmp_path):
    run = experiment.make(experiment.load_config(workdir))
    scores = {"depth": {"rmse": 0.5}}
    report = result_files.make(
        scores, None, run.final_criteria, checkpoint="latest", step=0, protocol=run.protocol_description
    )
    path = result_files.write(report, workdir / "results_latest.json")
    try:
        loaded = mtl_jax.load(workdir, "latest")
        folder = loaded.save(tmp_path / "scored", license="apache-2.0", author="A. Person")
    finally:
        path.unlink()
    card = (folder / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert "published by A. Person" in card
    assert "rmse 0.5000" in card
    assert "depth image" in card  # the protocol
    assert mtl_jax.load(folder).results["results"] == scores


def test_damaged_scores_hinder_nobody_but_who_asks_for_them(saved, tmp_path, caplog):
    folder = shutil.copytree(saved, tmp_path / "rooms")
    (folder / "results.json").write_text("[" * 100_000)
    (folder / "training.json").write_text("{")
    loaded = mtl_jax.load(folder)
    assert not caplog.messages
    card = (loaded.save(tmp_path / "again") / "README.md").read_text()
    assert "The model was not evaluated" in card
    assert "the number of steps is not known" in card
    said = caplog.text
    assert f"the model from {folder} is without scores: {folder / 'results.json'} is not a report" in said
    assert f"{folder / 'training.json'} cannot be read" in said


def test_scores_of_another_step_are_left(workdir):
    path = workdir / "results_latest.json"
    report = {"checkpoint": "latest", "step": 7, "protocol": {}, "results": {}, "delta_m": None, "single_task": None}
    result_files.write(report, path)
    try:
        assert mtl_jax.load(workdir, "latest").results is None
    finally:
        path.unlink()


def test_the_card_says_what_it_does_not_know(saved):
    card = (saved / "README.md").read_text()
    assert "license: unknown" in card
    assert "The license of the weights is not stated." in card
    assert "The model was not evaluated before it was saved." in card
    assert "* step 0: the initial weights, without training\n* initial weights: converted weights\n" in card
    assert "| semseg | id of the class, from 0 | 40: 0 wall, 1 floor" in card


def test_the_card_says_how_far_the_training_went(saved, model, tmp_path):
    made = History("resnet50.pth", 30, 120)
    folder = model_folder.write(tmp_path / "x", model.experiment, model.net, made, None)
    for place in (folder, mtl_jax.load(folder).save(tmp_path / "y")):
        assert "* step 30 of 120\n* initial weights: resnet50.pth\n" in (place / "README.md").read_text()


def test_the_card_of_the_current_folder_has_its_name(model, tmp_path, monkeypatch):
    (tmp_path / "rooms").mkdir()
    monkeypatch.chdir(tmp_path / "rooms")
    assert "\n# rooms\n" in (model.save(".") / "README.md").read_text()


def test_the_files_of_a_saved_model_must_fit(saved, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((saved / name).read_bytes())
    arrays = weights.read_arrays(tmp_path / "model.safetensors")
    name = next(iter(arrays))
    weights.write_arrays(tmp_path / "model.safetensors", {**arrays, "extra": arrays[name]})
    with pytest.raises(ValueError, match=r"model\.safetensors: the weights do not fit .*\n  unmatched: extra"):
        mtl_jax.load(tmp_path)
    del arrays[name]
    weights.write_arrays(tmp_path / "model.safetensors", arrays)
    with pytest.raises(ValueError, match=rf"unfilled: {re.escape(name)}"):
        mtl_jax.load(tmp_path)


def test_what_holds_no_model(model, saved, workdir, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere; give the work directory of a run"):
        mtl_jax.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="is no work directory"):
        mtl_jax.load(tmp_path)
    with pytest.raises(ValueError, match="holds a single model; leave step out"):
        mtl_jax.load(saved, "latest")
    with pytest.raises(FileExistsError, match="is not empty"):
        model.save(saved)
    with pytest.raises(FileNotFoundError, match="has no step 3"):
        mtl_jax.load(workdir, "3")
    with pytest.raises(FileNotFoundError, match=r"is a saved model .*; give the work directory of a run"):
        experiment.load_config(saved)
    with pytest.raises(FileNotFoundError, match=r"is a saved model .*; give the work directory of a run"):
        Checkpoints(saved, read_only=True)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"model": ' * 900 + "{}" + "}" * 900, "{", "[]", ""])
def test_a_damaged_configuration_is_an_error(saved, tmp_path, content):
    folder = shutil.copytree(saved, tmp_path / "rooms")
    (folder / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config\.json"):
        mtl_jax.load(folder)


@pytest.mark.parametrize("imports", ["antigravity", 3, {"antigravity": 1}, ["antigravity", 3]])
def test_imports_of_another_form_are_an_error(saved, tmp_path, imports):
    config = {**json.loads((saved / "config.json").read_text()), "imports": imports}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ValueError, match=r"imports|modules"):
        mtl_jax.load(tmp_path)
    assert "antigravity" not in sys.modules


def test_a_folder_with_checkpoints_is_a_work_directory(workdir, saved, tmp_path):
    folder = shutil.copytree(workdir, tmp_path / "run")
    shutil.copy(saved / "model.safetensors", folder)
    assert mtl_jax.load(folder, "latest").origin == f"{folder}, step 0"


def test_a_model_that_cannot_be_saved_leaves_no_folder(model, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("disk")

    monkeypatch.setattr("mtl_jax.inference.model_card.text", fail)
    with pytest.raises(OSError, match="disk"):
        model.save(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(OSError, match="disk"):
        model.save(tmp_path / "empty")
    assert not list((tmp_path / "empty").iterdir())


def test_neither_data_nor_builders_are_needed(workdir):
    config = experiment.load_config(workdir)
    config.data.data_dir, config.data.builder = "/nowhere/at/all", "rendered_scenes/no_such_config"
    assert from_run(config, workdir, "latest").tasks == TASKS


# The hub


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for huggingface_hub, and the calls that it got."""
    calls, module = [], types.ModuleType("huggingface_hub")

    def provide(folder):
        def snapshot_download(repo_id, *, revision=None, allow_patterns=None):
            calls.append((repo_id, revision, allow_patterns))
            return str(folder)

        module.snapshot_download = snapshot_download
        monkeypatch.setitem(sys.modules, "huggingface_hub", module)
        return calls

    return provide


def test_a_model_on_the_hub(hub, saved, model):
    calls = hub(saved)
    files = ["config.json", "model.safetensors", "README.md", "training.json", "results.json"]
    assert_close(mtl_jax.load("hf://someone/rooms")(picture()), model(picture()))
    assert mtl_jax.load("hf://someone/rooms@v1.0").origin == "hf://someone/rooms@v1.0"
    assert calls == [("someone/rooms", None, files), ("someone/rooms", "v1.0", files)]


def test_addresses_on_the_hub(hub, saved, monkeypatch):
    hub(saved)
    for address in ("hf://rooms", "hf://a/b/c", "hf://a/b@", "hf://../b c"):
        with pytest.raises(ValueError, match="give hf://OWNER/NAME or hf://OWNER/NAME@REVISION"):
            mtl_jax.load(address)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r'needs the extra "hub": pip install "mtl-jax\[hub\]"'):
        mtl_jax.load("hf://someone/rooms")


def test_a_saved_model_imports_nothing(hub, saved, tmp_path):
    """Neither from the hub, nor from a folder that was copied or cloned."""
    config = json.loads((saved / "config.json").read_text()) | {"imports": ["antigravity"]}
    (tmp_path / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(config))
    hub(tmp_path)
    for place in ("hf://someone/rooms", tmp_path):
        with pytest.raises(ValueError, match=r"asks for the modules antigravity. A saved model imports nothing"):
            mtl_jax.load(place)
    with pytest.raises(FileNotFoundError, match="is a saved model"):
        experiment.load_config(tmp_path)  # what other commands read first
    assert "antigravity" not in sys.modules


# Names


def test_networks_by_name():
    assert "mti_net" in mtl_jax.list_models()
    assert "hrnet_w18" in mtl_jax.list_backbones()
    net = mtl_jax.create_model("baseline", "tiny", tasks=("semseg", "depth"), dataset="nyud", seed=3)
    outputs = models.evaluation_view(net)(np.zeros((1, 32, 64, 3), np.float32))
    assert outputs.logits["semseg"].shape == (1, 32, 64, 40)
    soft = mtl_jax.create_model("cross_stitch", "tiny", tasks=("semseg", "depth"), dataset="nyud")
    assert len(soft.backbones()) == 2
    own = mtl_jax.create_model("baseline", "tiny", tasks=("depth", "semseg"), num_classes=5)
    assert models.evaluation_view(own)(np.zeros((1, 32, 32, 3), np.float32)).logits["semseg"].shape[-1] == 5


def test_pretrained_weights_by_path(tmp_path):
    net = mtl_jax.create_model("single_task", "tiny", tasks=("depth",))
    arrays = {key: value + 1 for key, value in weights.to_torch(net.backbone).items()}
    weights.write_arrays(tmp_path / "x.safetensors", arrays)
    again = mtl_jax.create_model("single_task", "tiny", tasks=("depth",), pretrained=tmp_path / "x.safetensors")
    for key, value in weights.to_torch(again.backbone).items():
        np.testing.assert_array_equal(value, arrays[key])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ("semseg",)}, "num_classes is None; give a number of at least 1 for each of semseg"),
        ({"tasks": ("depth",), "num_classes": 3}, "num_classes is 3, and the tasks with classes are none"),
        ({"tasks": ("semseg",), "num_classes": 3, "dataset": "nyud"}, "leave num_classes out"),
        ({"tasks": ("semseg",), "num_classes": {"semseg": 0}}, "give a number of at least 1"),
        ({"tasks": ("sal",), "dataset": "nyud"}, "data set 'nyud' has no task sal"),
        ({"tasks": ("depth",), "pretrained": True}, "backbone 'tiny' has no published weights"),
        ({"tasks": ("nothing",)}, "unknown task 'nothing'"),
    ],
)
def test_networks_that_do_not_exist(options, message):
    with pytest.raises(ValueError, match=message):
        mtl_jax.create_model("baseline", "tiny", **options)


def test_importing_the_package_imports_nothing_large():
    code = (
        "import sys, mtl_jax\n"
        "large = {'jax', 'flax', 'tensorflow_datasets', 'cv2', 'numpy'} & set(sys.modules)\n"
        "assert not large, large\n"
        "assert mtl_jax.losses.softmax_cross_entropy and 'jax' in sys.modules\n"
        "assert {'models', 'load', 'create_model'} <= set(dir(mtl_jax))\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=300)


def test_every_part_of_the_package_is_reachable():
    folder = ROOT / "mtl_jax"
    parts = {path.stem for path in folder.glob("[a-z]*") if path.is_dir() or path.suffix == ".py"}
    assert parts <= set(dir(mtl_jax))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mtl_jax.__getattr__("nothing")
