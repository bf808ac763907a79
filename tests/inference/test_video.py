"""Videos and folders of frames."""

from functools import partial

import cv2
import numpy as np
import pytest
from PIL import Image

from mtl_jax.inference import video
from mtl_jax.inference.maps import Map

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
    top = frames[0].shape[0] - H
    assert frames[0].shape[1] == 3 * W  # the frame and two maps
    saliency = frames[0][top:, W : 2 * W]
    assert saliency[10:-10, 4 : W // 2 - 8].mean() > 200
    assert saliency[10:-10, W // 2 + 8 : -4].mean() < 50
    assert video.predict_video(Stub(), out, tmp_path / "again.mp4", limit=2) == 2
    assert sorted(path.name for path in out.parent.iterdir()) == [out.name]
    rate, frames = read(tmp_path / "again.mp4")
    assert (rate, len(frames)) == (pytest.approx(10), 2)


def test_a_colour_means_the_same_in_all_frames(folder, tmp_path):
    """Depth of 0 m to 150 m; a range of each frame's own would show every frame alike."""
    ranges = video._Ranges()
    drawn = [ranges.draw({"depth": Map("depth", np.full((2, 2, 1), d, np.float32), 1)})["depth"] for d in (0, 150, 0)]
    assert (drawn[0] == drawn[2]).all()
    assert (drawn[0] != drawn[1]).any()


def test_long_videos_are_shrunk(folder, tmp_path):
    video.predict_video(Stub(), folder, tmp_path / "x.mp4", long_side=100, limit=1)
    _, (image,) = read(tmp_path / "x.mp4")
    assert max(image.shape) <= 100


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
