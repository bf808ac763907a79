"""Videos and folders of frames."""

import re
import threading
from functools import partial

import cv2
import numpy as np
import pytest
from PIL import Image

from mtl_jax.inference import side_by_side, video
from mtl_jax.inference.image_input import as_image
from mtl_jax.inference.maps import Map
from mtl_jax.inference.model import Model
from mtl_jax.inference.side_by_side import SideBySide

H, W = 48, 64


class Stub:
    """A model whose depth is the red channel, and whose saliency is the green one."""

    def stream(self, frames, image_of, options):
        for frame in frames:
            seen = image_of(frame).astype(np.float32)
            maps = {"sal": Map("sal", seen[..., 1:2] / 255, 1), "depth": Map("depth", seen[..., :1], 1)}
            yield frame, partial(dict, maps)


def frame(index):
    image = np.zeros((H, W, 3), np.uint8)
    image[..., 1] = 255 * (np.arange(W) < W // 2)
    image[..., 0] = 50 * index
    return image


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "frames").mkdir()
    for index in range(4):
        Image.fromarray(frame(index)).save(tmp_path / "frames" / f"{index}.png")
    return tmp_path / "frames"


def read(path):
    capture = cv2.VideoCapture(str(path))
    try:
        frames = []
        while True:
            there, image = capture.read()
            if not there:
                return capture.get(cv2.CAP_PROP_FPS), frames
            frames.append(image[..., ::-1])
    finally:
        capture.release()


@pytest.mark.parametrize("suffix", list(video.CODECS))
def test_a_folder_of_frames_becomes_a_video_and_that_a_video(folder, tmp_path, suffix):
    out = tmp_path / "new" / f"out{suffix}"
    assert video.predict_video(Stub(), folder, out, frames_per_second=10) == 4
    rate, frames = read(out)
    assert rate == pytest.approx(10)
    assert len(frames) == 4
    _, second, _ = np.split(frames[0][: side_by_side.text.LINE + 180, :], 3, axis=1)  # the frame and two maps
    assert second[60:160, 20:100].mean() > 200
    assert second[60:160, 140:220].mean() < 50
    assert video.predict_video(Stub(), out, tmp_path / "again.mp4", limit=2) == 2
    assert sorted(path.name for path in out.parent.iterdir()) == [out.name]
    rate, frames = read(tmp_path / "again.mp4")
    assert (rate, len(frames)) == (pytest.approx(10), 2)


class Prefetching(Model):
    """A model whose frames are read ahead, as those of a trained one."""

    def __init__(self, finish):
        self._finish_frame = finish

    def _finishes(self, images, options, confidence):
        return [self._finish_frame for _ in images]


def test_an_error_is_not_hidden_by_a_frame_that_is_being_read(folder, tmp_path, monkeypatch):
    reading, ended = threading.Event(), threading.Event()

    def read_slowly(path):
        if path.stem == "1":
            reading.set()
            ended.wait(1)  # long enough for whoever closes the frames too early
        return as_image(path)

    def fail():
        assert reading.wait(60)
        raise ValueError("the true error")

    monkeypatch.setattr(video, "as_image", read_slowly)
    with pytest.raises(ValueError, match="the true error"):
        video.predict_video(Prefetching(fail), folder, tmp_path / "x.mp4")


@pytest.mark.parametrize("name", ["same.avi", "other.mp4"])
def test_nothing_is_overwritten(folder, tmp_path, monkeypatch, name):
    video.predict_video(Stub(), folder, tmp_path / "same.avi")
    (tmp_path / "other.mp4").write_bytes(b"precious")
    before = (tmp_path / name).read_bytes()
    monkeypatch.setattr(video, "_open", None)  # nothing is read before
    itself = ", which is the input itself" if name == "same.avi" else ""
    with pytest.raises(FileExistsError, match=rf"{name} exists already{itself}; remove it, or give another file"):
        video.predict_video(Stub(), tmp_path / "same.avi", tmp_path / name)
    assert (tmp_path / name).read_bytes() == before


def test_a_video_that_is_cut_short_is_told_of(folder, tmp_path, caplog):
    video.predict_video(Stub(), folder, tmp_path / "whole.avi")
    data = (tmp_path / "whole.avi").read_bytes()
    third = [match.start() for match in re.finditer(b"00dc", data)][2]
    (tmp_path / "cut.avi").write_bytes(data[: third + 40])
    assert video.predict_video(Stub(), tmp_path / "cut.avi", tmp_path / "x.avi", limit=1) == 1
    assert not caplog.messages
    written = video.predict_video(Stub(), tmp_path / "cut.avi", tmp_path / "y.avi")
    assert 1 <= written < 4
    assert len(read(tmp_path / "y.avi")[1]) == written
    assert f"cut.avi ends after frame {written}, and its header says 4 frames" in caplog.text


def test_a_writer_that_writes_nothing_is_an_error(folder, tmp_path, monkeypatch):
    class Writer:
        def write(self, frame):
            pass

        def release(self):
            (tmp_path / ".x.partial.mp4").touch()

    monkeypatch.setattr(video, "_writer", lambda *_: Writer())
    with pytest.raises(OSError, match=r"has written no frame to .*x\.mp4"):
        video.predict_video(Stub(), folder, tmp_path / "x.mp4")
    assert not (tmp_path / "x.mp4").exists()


def drawn(drawing, index, depth):
    """The picture of a frame, without captions and keys: the frame and its map."""
    picture = drawing.draw(frame(index), {"depth": Map("depth", np.full((H, W, 1), depth, np.float32), 1)})
    return np.split(picture[side_by_side.text.LINE :][:180], 2, axis=1)


def test_a_colour_means_the_same_in_all_frames():
    """Depth of 0 m to 150 m; a range of each frame's own would show every frame alike."""
    drawing = SideBySide(1920)
    first, second, third = (drawn(drawing, 0, depth)[1] for depth in (1, 150, 1))
    assert (first == third).all()
    assert (first != second).any()


def test_names_keep_their_place():
    """The most frequent class comes first in a key, and frames differ."""
    drawing, shown = SideBySide(1920), []
    for share in (0.7, 0.3):
        ids = (np.arange(W) >= share * W).astype(np.int32)[None].repeat(H, axis=0)
        maps = {"semseg": Map("semseg", ids, 2, ("wall", "floor"))}
        shown.append(drawing.draw(frame(0), maps)[-side_by_side.keys.LINES * side_by_side.text.LINE :])
    np.testing.assert_array_equal(*shown)


def test_pictures_have_one_size_whatever_their_keys_hold():
    drawing = SideBySide(1920)
    sizes = set()
    for number in (1, 40):
        ids = (np.arange(H * W) % number).astype(np.int32).reshape(H, W)
        sizes.add(drawing.draw(frame(0), {"semseg": Map("semseg", ids, 40, tuple("abcdefgh" * 5))}).shape)
    ((height, width, _),) = sizes
    assert height % 2 == width % 2 == 0


def test_long_videos_are_shrunk():
    large = np.zeros((1080, 1920, 3), np.uint8)
    depth = {"depth": Map("depth", np.ones((1080, 1920, 1), np.float32), 1)}
    assert max(SideBySide(1280).draw(large, depth).shape) <= 1280


def test_what_is_no_video(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no video or folder of frames at"):
        video.predict_video(Stub(), tmp_path / "nothing.mp4", tmp_path / "x.mp4")
    with pytest.raises(ValueError, match="frames_per_second is 0; give a number above 0"):
        video.predict_video(Stub(), folder, tmp_path / "x.mp4", frames_per_second=0)
    with pytest.raises(ValueError, match=r"ends in '\.gif'; videos are written to files that end in \.mp4, \.avi"):
        video.predict_video(Stub(), folder, tmp_path / "x.gif")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ValueError, match="is no video that OpenCV can read"):
        video.predict_video(Stub(), tmp_path / "text.mp4", tmp_path / "x.mp4")
    Image.fromarray(frame(0)[:20]).save(folder / "9.png")
    with pytest.raises(ValueError, match=r"9\.png is 20x64, and 0\.png before it 48x64"):
        video.predict_video(Stub(), folder, tmp_path / "x.mp4")
    assert not list(tmp_path.glob("*x.mp4")) + list(tmp_path.glob(".x*"))
