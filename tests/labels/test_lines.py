"""Lines at another size: neither dots nor bars."""

import cv2
import numpy as np
import pytest

from mtl_jax import tasks
from mtl_jax.data import transforms
from mtl_jax.labels import lines

H, W = 90, 120


def drawing():
    """A closed polygon, one pixel wide."""
    picture = np.zeros((H, W), np.uint8)
    corners = np.array([(20, 12), (101, 33), (70, 80), (15, 60)])
    cv2.polylines(picture, [corners], True, 1)
    return picture.astype(np.float32)


def pieces(picture):
    count, _ = cv2.connectedComponents((picture > 0).astype(np.uint8), connectivity=8)
    return count - 1


def widest(picture):
    """The width of the thickest part: the sides of the largest square that fits into the lines."""
    size = 0
    while cv2.erode((picture > 0).astype(np.uint8), np.ones((size + 1, size + 1), np.uint8), borderValue=0).any():
        size += 1
    return size


@pytest.mark.parametrize("scale", [0.5, 0.61, 0.75, 1.0, 1.3, 1.5, 2.0, 2.7])
def test_lines_stay_whole_and_thin(scale):
    height, width = int(H * scale), int(W * scale)
    got = lines.redraw(drawing(), height, width)
    assert got.shape == (height, width)
    assert pieces(got) == 1
    assert widest(got) <= 2  # two where a staircase of pixels closes up
    assert np.count_nonzero(got) == pytest.approx(scale * np.count_nonzero(drawing()), rel=0.25)
    inside, _ = cv2.connectedComponents((got == 0).astype(np.uint8), connectivity=4)
    assert inside - 1 == 2  # what lies in the polygon, and what lies around it
    # The line is where OpenCV, which looks at the centres of pixels, too, moves it.
    area = cv2.resize(drawing(), (width, height), interpolation=cv2.INTER_LINEAR)
    near = cv2.dilate((area > 0).astype(np.uint8), np.ones((3, 3), np.uint8))
    assert near[got > 0].all()
    sampled = cv2.resize(drawing(), (width, height), interpolation=cv2.INTER_NEAREST)
    if scale <= 0.75 or scale >= 1.5:  # as the published recipes have it
        assert pieces(sampled) > 1 or widest(sampled) > 1


def test_the_same_size_changes_nothing():
    picture = np.random.default_rng(0).random((H, W)).astype(np.float32) * (drawing() > 0)
    np.testing.assert_array_equal(lines.redraw(picture, H, W), picture)
    assert not lines.redraw(np.zeros((H, W), np.float32), 20, 20).any()


def test_pixels_without_a_label_keep_none():
    label = drawing()[..., None]
    label[:30] = 255
    resampling = transforms.Resampling(lines="redrawn")
    got = transforms.resize({"edge": label}, (45, 60), resampling)["edge"]
    assert got.dtype == np.float32
    assert got.shape == (45, 60, 1)
    assert (got[:15] == 255).all()
    assert set(np.unique(got[15:])) == {0, 1}
    assert pieces(got[15:, :, 0]) == 1
    regions = tasks.get("sal").kind
    assert regions.redrawn(label, got) is got


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_a_line_at_the_border_stays_there(scale):
    picture = np.zeros((20, 30), np.float32)
    picture[0] = picture[-1] = picture[:, 0] = picture[:, -1] = 1
    got = lines.redraw(picture, int(20 * scale), int(30 * scale))
    assert pieces(got) == 1
    assert (got > 0).any(axis=0).sum() >= 30 * scale - 2
