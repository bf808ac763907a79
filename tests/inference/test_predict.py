"""Image files as the input of predictions."""

import io
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from mtl_jax.drawing import panels
from mtl_jax.inference import predict
from mtl_jax.labels import Conventions
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


def test_a_full_disk_is_told_by_the_panel_and_leaves_no_half(tmp_path, monkeypatch):
    run = SimpleNamespace(
        experiment=SimpleNamespace(image_size=(H, W), class_names={}, conventions=Conventions()),
        mesh=SimpleNamespace(size=1),
        tasks=(),
        predict_batches=lambda batches: [(0, {})],
    )
    monkeypatch.setattr(predict, "tqdm", lambda samples, **_: samples)
    sample = {"id": "rooms/a", "image": picture()}
    with small_files(), pytest.raises(OSError, match=r"File too large: '.*panels/rooms/a\.png'"):
        predict.predict(run, [sample], tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert predict.predict(run, [sample], tmp_path) == 1
    panel = cv2.imread(str(tmp_path / "panels/rooms/a.png"), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(panel, panels.panel(sample["image"], {}, caption="rooms/a"))


def test_the_script_lists_them(photos, monkeypatch):
    """What can be predicted is there, and the status says that something is missing."""
    (photos / "text.png").write_text("no image")

    class Model:
        tasks = ()

        def __init__(self, *_):
            pass

    monkeypatch.setattr("mtl_jax.inference.restored.Restored", Model)
    monkeypatch.setattr("mtl_jax.experiment.load_config", lambda _: None)
    monkeypatch.setattr(predict, "predict", lambda run, samples, out: len(list(samples)))
    result = scripts.run("predict", "--workdir=run", f"--images={photos}", f"--images={photos / 'more'}", "--out=out")
    assert result.returncode == 1
    assert "4 images: maps and panels are in out" in result.stdout
    assert "error: 1 files could not be read:\n" in result.stderr
    assert "text.png: it is no image" in result.stderr
