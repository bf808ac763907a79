"""Images on their way to a network, and windows over large ones."""

import itertools
import math

import numpy as np
import pytest

from mtl_jax import tasks
from mtl_jax.data import augmentation
from mtl_jax.inference import windows
from mtl_jax.inference.options import PredictOptions
from mtl_jax.inference.placement import PLACEMENTS, scaled, to_multiples


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(
    ("size", "content"),
    [
        ((60, 80), (96, 128)),
        ((30, 40), (96, 128)),
        ((90, 60), (96, 64)),
        ((50, 200), (32, 128)),
        ((1, 1), (96, 96)),
        ((1, 999), (1, 128)),
    ],
)
def test_fit_keeps_the_aspect_and_pads_the_rest(size, content):
    placed = PLACEMENTS["fit"](picture(*size), (96, 128), 32)
    assert placed.content == content
    assert placed.pixels.shape == (96, 128, 3)
    shown = placed.pixels[: content[0], : content[1]]
    np.testing.assert_array_equal(shown, scaled(picture(*size), content))
    assert (placed.pixels[content[0] :] == placed.pixels[content[0] - 1]).all()  # the last row, repeated
    assert (placed.pixels[:, content[1] :] == placed.pixels[:, content[1] - 1 : content[1]]).all()


@pytest.mark.parametrize(
    ("size", "content"), [((60, 80), (60, 80)), ((96, 128), (96, 128)), ((192, 128), (96, 64)), ((50, 256), (25, 128))]
)
def test_pad_enlarges_nothing(size, content):
    placed = PLACEMENTS["pad"](picture(*size), (96, 128), 32)
    assert placed.content == content
    assert placed.pixels.shape == (96, 128, 3)
    np.testing.assert_array_equal(placed.pixels[: content[0], : content[1]], scaled(picture(*size), content))


def test_a_photo_is_shrunk_without_false_patterns():
    """Stripes one pixel wide become grey."""
    stripes = np.zeros((240, 320, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.ptp(PLACEMENTS["fit"](stripes, (60, 80), 32).pixels.astype(int)) <= 1


@pytest.mark.parametrize("size", [(48, 64), (240, 320), (96, 128)])
def test_an_image_of_the_networks_aspect_is_seen_as_in_training(size):
    fitted, stretched = (PLACEMENTS[name](picture(*size), (96, 128), 32).pixels for name in ("fit", "stretch"))
    np.testing.assert_array_equal(fitted, stretched)


@pytest.mark.parametrize("size", [(60, 80), (200, 90), (96, 128)])
def test_stretch_is_what_evaluation_does(size):
    image = picture(*size)
    placed = PLACEMENTS["stretch"](image, (96, 128), 32)
    want = augmentation.val_transform({"image": image}, (96, 128), normalised=False)["image"]
    np.testing.assert_array_equal(placed.pixels, want)
    assert placed.content == (96, 128)


def test_none_keeps_every_pixel():
    placed = PLACEMENTS["none"](picture(33, 64), (96, 128), 32)
    assert placed.pixels.shape == (64, 64, 3)
    assert placed.content == (33, 64)
    np.testing.assert_array_equal(placed.pixels[:33], picture(33, 64))
    assert to_multiples((32, 65), 32) == (32, 96)


@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("length", [64, 65, 100, 128, 129, 1000])
def test_windows_cover_a_side_and_overlap(length, overlap):
    begin = windows.starts(length, 64, overlap)
    assert begin[0] == 0
    assert begin[-1] == length - 64
    assert begin == sorted(set(begin))
    assert all(after - before <= math.ceil(64 * (1 - overlap)) for before, after in itertools.pairwise(begin))


def test_weights_fall_towards_the_border():
    weight = windows.weights((32, 64), 0.25)
    assert weight.shape == (32, 64)
    assert weight.min() > 0
    assert weight[16, 32] == 1
    assert (np.diff(weight[16, :17]) >= 0).all()
    np.testing.assert_array_equal(weight, weight[::-1, ::-1])


class Mirror:
    """A network whose depth is the red channel, and whose classes are those of the green one."""

    size, multiple, fixed_size = (64, 96), 32, False

    def __init__(self):
        self.seen = []

    def values(self, images, options):
        self.seen.append(images.shape)
        green = (images[..., 1:2] // 64).astype(np.int64)
        return {"depth": images[..., :1].astype(np.float32), "semseg": np.eye(4, dtype=np.float32)[green[..., 0]]}


KINDS = {name: tasks.get(name).kind for name in ("semseg", "depth")}


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6])
@pytest.mark.parametrize("size", [(64, 96), (65, 97), (300, 210), (20, 400), (10, 10)])
def test_nothing_is_lost_between_windows_or_at_the_border(size, overlap):
    image = picture(*size)
    network = Mirror()
    options = PredictOptions(resize="windows", overlap=overlap, batch_size=3)
    decided, sure = windows.predict(image, network, KINDS, options, confidence=True)
    assert sure.keys() == {"semseg"}  # depth has no probability
    assert sure["semseg"].shape == size
    np.testing.assert_allclose(sure["semseg"], 1, rtol=1e-5)
    np.testing.assert_allclose(decided["depth"][..., 0], image[..., 0], atol=1e-3)
    np.testing.assert_array_equal(decided["semseg"], image[..., 1] // 64)
    assert all(shape[1:] == (64, 96, 3) and shape[0] <= 3 for shape in network.seen)


@pytest.mark.parametrize("axis", [0, 1])
def test_windows_blend_without_steps(axis):
    """Two windows that disagree, as depth does, leave a ramp between them."""

    class Disagreeing(Mirror):
        size = (96, 96)

        def values(self, images, options):
            level = images[:, :1, :1, :1].astype(np.float32)  # every window has the depth of its first pixel
            return {"depth": np.broadcast_to(level, (*images.shape[:3], 1))}

    image = np.zeros((96, 160, 3), np.uint8)
    image[:, 60:] = 100
    image = image if axis else image.transpose(1, 0, 2)
    options = PredictOptions(resize="windows", overlap=0.3)
    decided, _ = windows.predict(image, Disagreeing(), {"depth": KINDS["depth"]}, options)
    depth = decided["depth"][..., 0]
    line = depth[40] if axis else depth[:, 40]
    assert line[0] == 0
    assert line[-1] == 100
    assert np.abs(np.diff(line)).max() < 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize": "crop"}, "resize is 'crop'; it may be 'fit' or 'pad' or 'stretch' or 'none' or 'windows'"),
        ({"scales": ()}, "give at least one number"),
        ({"scales": (0.0,)}, "each above 0"),
        ({"overlap": 1.0}, "overlap is 1.0; give a number from 0 to below 1"),
        ({"window_size": (64, 64)}, "window_size is 64x64 and resize 'fit', which has no windows"),
        ({"window_size": (8, 64), "resize": "windows"}, "the least side is 32"),
        ({"batch_size": 0}, "batch_size is 0; the least is 1"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        PredictOptions(**options)
