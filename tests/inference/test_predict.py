"""Image files as the input of predictions."""

import io
import json
import zlib
from functools import partial
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from mtl_jax.drawing import panels
from mtl_jax.evaluation import predictions
from mtl_jax.inference import predict
from mtl_jax.inference.maps import Map
from mtl_jax.inference.options import PredictOptions
from tests import scripts
from tests.full_disk import small_files

H, W = 24, 40


def picture(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (H, W, 3), np.uint8)


def png(image):
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos [2024], new"
    (folder / "more").mkdir(parents=True)
    for name in ("a.png", "b.PNG", "c[1].png", "more/d.png"):
        (folder / name).write_bytes(png(picture()))
    (folder / "notes.txt").write_text("no image")
    return folder


def names(*places, limit=0):
    return [path.name for path in predict.find_images(map(str, places), limit)]


def test_a_place_is_a_file_a_folder_or_a_glob(photos):
    assert names(photos / "c[1].png") == ["c[1].png"]
    assert names(photos) == ["a.png", "b.PNG", "c[1].png"]
    assert names(photos / "*.png") == ["a.png", "c[1].png"]
    assert names(photos / "**" / "*.png") == ["a.png", "c[1].png", "d.png"]
    assert names(photos / "[ab].*") == ["a.png", "b.PNG"]
    assert names(photos / "c[1].*") == ["c[1].png"]
    assert names(photos, photos / "more", photos / "a.png") == ["a.png", "b.PNG", "c[1].png", "d.png"]
    assert names(photos, limit=2) == ["a.png", "b.PNG"]


def test_the_home_folder(photos, monkeypatch):
    monkeypatch.setenv("HOME", str(photos))
    assert names("~/more/*.png") == ["d.png"]
    assert names("~") == ["a.png", "b.PNG", "c[1].png"]


def test_places_without_an_image(photos):
    with pytest.raises(FileNotFoundError, match=r"no file matches --images '.*x\.png'; .* put a glob in quotes"):
        names(photos, photos / "x.png")
    (photos / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty has no file that ends in \.bmp, \.jpeg, \.jpg"):
        names(photos / "empty")
    (photos / "more" / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match="several images are named a; predict on one folder at a time"):
        names(photos, photos / "more")


ORIENTED = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: np.transpose(x, (1, 0, 2)),
    6: lambda x: np.transpose(x, (1, 0, 2))[:, ::-1],
    7: lambda x: np.transpose(x[::-1, ::-1], (1, 0, 2)),
    8: lambda x: np.transpose(x, (1, 0, 2))[::-1],
}


@pytest.mark.parametrize("orientation", [*ORIENTED, 0, 9])
@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_photographs_are_upright(tmp_path, orientation, kind):
    """Images are seen as OpenCV and every viewer shows them; an orientation that does not exist changes nothing."""
    stored, content = cv2.resize(picture()[:3, :5], (W, H)), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(content, kind, exif=exif)
    path = tmp_path / f"x.{kind}"
    path.write_bytes(content.getvalue())
    (sample,) = predict.file_samples([path], [])
    want = ORIENTED.get(orientation, ORIENTED[1])(stored)
    assert sample["image"].shape == want.shape
    np.testing.assert_allclose(sample["image"].astype(int), want.astype(int), atol=0 if kind == "png" else 40)
    if kind == "jpeg":
        np.testing.assert_array_equal(sample["image"], cv2.imread(str(path), cv2.IMREAD_COLOR_RGB))


def test_unreadable_files_are_passed_over(photos):
    (photos / "text.png").write_text("no image")
    (photos / "cut.png").write_bytes(png(picture())[:500])
    good = png(picture())
    header = b"IHDR" + (1 << 20).to_bytes(4, "big") * 2 + good[24:29]  # 3 TB, by what it says
    (photos / "huge.png").write_bytes(good[:12] + header + zlib.crc32(header).to_bytes(4, "big") + good[33:])
    unreadable = []
    paths = [*predict.find_images([str(photos)]), photos / "gone.png"]
    read = [sample["id"] for sample in predict.file_samples(paths, unreadable)]
    assert read == ["a", "b", "c[1]"]
    assert [line.split("/")[-1].split(":")[0] for line in unreadable] == ["cut.png", "huge.png", "text.png", "gone.png"]
    assert "the PNG ends early (500 bytes)" in unreadable[0]


class Stub:
    """A model whose depth is the red channel."""

    origin = "runs/stub"

    def __init__(self, tasks=()):
        self.tasks = tasks

    def stream(self, samples, image_of, options):
        for sample in samples:
            red = image_of(sample)[..., :1].astype(np.float32)
            yield sample, partial(dict, {task: Map(task, red, 1) for task in self.tasks})


def test_a_full_disk_is_told_by_the_panel_and_leaves_no_half(tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "tqdm", lambda samples, **_: samples)
    run, sample = Stub(), {"id": "rooms/a", "image": picture()}
    with small_files(), pytest.raises(OSError, match=r"File too large: '.*panels/rooms/a\.png'"):
        predict.predict(run, [sample], tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert predict.predict(run, [sample], tmp_path) == 1
    panel = cv2.imread(str(tmp_path / "panels/rooms/a.png"), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(panel, panels.panel(sample["image"], {}, caption="rooms/a"))


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_files_say_what_they_mean(tmp_path, caplog):
    samples = [{"id": name, "image": picture(seed)} for seed, name in enumerate(("a", "b"))]
    assert predict.predict(Stub(("depth",)), iter(samples), tmp_path) == 2
    assert files(tmp_path) == [
        *("depth/a.npy", "depth/a.png", "depth/b.npy", "depth/b.png"),
        *("maps.json", "panels/a.png", "panels/b.png"),
    ]
    np.testing.assert_array_equal(np.load(tmp_path / "depth" / "b.npy"), picture(1)[..., 0])
    said = json.loads((tmp_path / "maps.json").read_text())
    assert (said["model"], said["format"], said["options"]["resize"]) == ("runs/stub", "default", "fit")
    assert said["tasks"]["depth"]["values"] == "value in m"
    assert said["tasks"]["depth"]["files"]["depth/NAME.png"].startswith("grey PNG of 16 bits: millimetres")
    assert not caplog.records
    assert predict.predict(Stub(("depth",)), samples, tmp_path, PredictOptions(flip=True), form="reference") == 2
    (warning,) = caplog.messages
    assert "holds maps with another format and another options (see maps.json)" in warning
    np.testing.assert_array_equal(predictions.load("depth", tmp_path / "depth" / "a")[..., 0], picture()[..., 0])


def test_maps_without_panels_beside_a_damaged_description(tmp_path, caplog):
    (tmp_path / "maps.json").write_text("{")
    predict.predict(Stub(("depth",)), [{"id": "a", "image": picture()}], tmp_path, panel=None)
    assert "maps.json cannot be read" in caplog.text
    assert files(tmp_path) == ["depth/a.npy", "depth/a.png", "maps.json"]
    assert json.loads((tmp_path / "maps.json").read_text())["format"] == "default"


def test_a_format_that_does_not_exist(tmp_path):
    with pytest.raises(ValueError, match="the format is 'jpeg'; it may be 'default' or 'reference'"):
        predict.predict(Stub(), [], tmp_path, form="jpeg")


def test_a_folder_of_an_evaluation_stays(tmp_path):
    predictions.claim(tmp_path, {"model": "x"}, "runs/x")
    with pytest.raises(ValueError, match="holds predictions that"):
        predict.predict(Stub(), [], tmp_path)


def test_the_script_lists_them(photos, monkeypatch):
    """What can be predicted is there, and the status says that something is missing."""
    (photos / "text.png").write_text("no image")

    monkeypatch.setattr("mtl_jax.inference.model.load", lambda *_: SimpleNamespace(tasks=()))
    monkeypatch.setattr(predict, "predict", lambda model, samples, out, options, **_: len(list(samples)))
    result = scripts.run("predict", "--workdir=run", f"--images={photos}", f"--images={photos / 'more'}", "--out=out")
    assert result.returncode == 1
    assert "4 images: maps and panels are in out" in result.stdout
    assert "error: 1 files could not be read:\n" in result.stderr
    assert "text.png: it is no image" in result.stderr


def test_options_of_the_command(photos, tmp_path, monkeypatch):
    told = {}
    monkeypatch.setattr(
        "mtl_jax.inference.model.load",
        lambda place, step, weights: told.update(place=place, step=step, weights=weights),
    )
    monkeypatch.setattr(predict, "predict", lambda _, samples, out, options, **more: told.update(more, options=options))
    flags = ["--format=reference", "--no_panels", "--tta=flip,scales=0.75+1", "--batch_size=4"]
    windows = ["--window=64x96", "--overlap=0.5"]
    command = ["predict", "--workdir=hf://a/b", "--step=3", "--weights=ema", f"--images={photos}", f"--out={tmp_path}"]
    assert scripts.run(*command, *flags, *windows).returncode == 0
    assert told == {
        **{"place": "hf://a/b", "step": "3", "weights": "ema", "form": "reference", "panel": None},
        "options": PredictOptions("windows", True, (0.75, 1.0), (64, 96), 0.5, 4),
    }
    assert scripts.run(*command).returncode == 0
    assert told["options"] == PredictOptions()
    assert told["panel"] == predict.PanelOptions()
    assert scripts.run(*command, "--resize=none", "--style=overlay", "--long_side=800").returncode == 0
    assert told["options"] == PredictOptions("none")
    assert told["panel"] == predict.PanelOptions("overlay", False, 800)
    for wrong, message in {
        "--window=64": "'64' is no size such as 480x640",
        "--tta=flip,scales=1+x": "'1+x' is no list of scales such as 0.75+1+1.25",
        "--tta=flop": "'flop' is no view; the views are flip and scales=A+B",
        "--split=val": "not allowed with argument --images",
    }.items():
        result = scripts.run(*command, wrong)
        assert result.returncode != 0
        assert message in result.stderr


def test_a_video_by_the_command(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr("mtl_jax.inference.model.load", lambda *_: "model")
    monkeypatch.setattr("mtl_jax.inference.video.predict_video", lambda *args, **more: told.append((args, more)) or 7)
    result = scripts.run("predict", "--workdir=run", "--video=a.mp4", "--out=b.mp4", "--limit=7")
    assert "7 frames: the video is b.mp4" in result.stdout
    more = {"frames_per_second": 25.0, "limit": 7}
    assert told == [(("model", "a.mp4", "b.mp4", PredictOptions()), more)]
