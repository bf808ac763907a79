"""Changes of colours against their formulas, written out for each pixel."""

import colorsys

import cv2
import numpy as np
import pytest

from mtl_jax.data.augmentation import ColorJitter, PhotometricDistortion
from mtl_jax.data.augmentation.colour import Distortion, Jitter

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8)


def truncated(values):
    return np.clip(values, 0, 255).astype(np.uint8)


def distorted(image, drawn):
    """The steps of mmsegmentation's PhotoMetricDistortion on RGB."""

    def contrast(x):
        return truncated(x.astype(np.float32) * np.float32(drawn.contrast)) if drawn.contrast is not None else x

    x = image
    if drawn.brightness is not None:
        x = truncated(x.astype(np.float32) + np.float32(drawn.brightness))
    x = contrast(x) if drawn.contrast_first else x
    if drawn.saturation is not None:
        hsv = cv2.cvtColor(x, cv2.COLOR_RGB2HSV)
        hsv[..., 1] = truncated(hsv[..., 1].astype(np.float32) * np.float32(drawn.saturation))
        x = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if drawn.hue is not None:
        hsv = cv2.cvtColor(x, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + drawn.hue) % 180
        x = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return x if drawn.contrast_first else contrast(x)


def test_photometric_distortion():
    step, rng, seen = PhotometricDistortion(), np.random.default_rng(1), []
    for _ in range(40):
        drawn = step.draw(rng)
        seen.append(drawn)
        np.testing.assert_array_equal(step.recolour(IMAGE, drawn), distorted(IMAGE, drawn))
    for field in ("brightness", "contrast", "saturation", "hue"):
        share = np.mean([getattr(drawn, field) is None for drawn in seen])
        assert 0.2 < share < 0.8
    assert {drawn.contrast_first for drawn in seen} == {True, False}
    np.testing.assert_array_equal(step.recolour(IMAGE, Distortion()), IMAGE)
    assert step.note(Distortion()) == ""


def jittered(image, drawn):
    """torchvision's functions on uint8 tensors: levels of each change are cut to whole numbers."""

    def grey(x):
        return np.floor(x @ np.array([0.2989, 0.587, 0.114]))[..., None]

    def blend(x, other, factor):
        return truncated(factor * x + (1 - factor) * other)

    def turn(x):
        out = np.empty_like(x)
        for place in np.ndindex(x.shape[:2]):
            h, s, v = colorsys.rgb_to_hsv(*(x[place] / 255))
            out[place] = truncated(np.array(colorsys.hsv_to_rgb((h + drawn.hue) % 1, s, v)) * (256 - 1e-3))
        return out

    changes = (
        lambda x: blend(x, 0, drawn.brightness),
        lambda x: blend(x, grey(x).mean(), drawn.contrast),
        lambda x: blend(x, grey(x), drawn.saturation),
        turn,
    )
    for number in drawn.order:
        image = changes[number](image)
    return image


@pytest.mark.parametrize("seed", range(4))
def test_colour_jitter(seed):
    step = ColorJitter(0.4, 0.5, 0.6, 0.2)
    drawn = step.draw(np.random.default_rng(seed))
    got, want = step.recolour(IMAGE, drawn).astype(int), jittered(IMAGE, drawn).astype(int)
    difference = np.abs(got - want)
    # Truncation turns a rounding of float32 into a level, which later changes may enlarge.
    assert (difference > 0).mean() < 0.02
    assert difference.max() <= 4


@pytest.mark.parametrize(
    "drawn", [Jitter(brightness=1.37), Jitter(contrast=0.63), Jitter(saturation=1.5), Jitter(hue=0.31)]
)
def test_one_change_of_colour(drawn):
    got, want = (f(IMAGE, drawn).astype(int) for f in (ColorJitter().recolour, jittered))
    if drawn.hue == 0:
        want = jittered(IMAGE, drawn._replace(order=(0, 1, 2))).astype(int)
    assert np.abs(got - want).max() <= 1
    assert (got != want).mean() < 0.01
    assert np.abs(got - IMAGE).mean() > 5


def test_the_ranges_of_the_jitter():
    rng = np.random.default_rng(0)
    drawn = [ColorJitter(0.4, 2.0, 0.0, 0.1).draw(rng) for _ in range(500)]
    for name, low, high in (("brightness", 0.6, 1.4), ("contrast", 0, 3), ("saturation", 1, 1), ("hue", -0.1, 0.1)):
        values = np.array([getattr(each, name) for each in drawn])
        assert low <= values.min() <= low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) <= values.max() <= high
    assert len({each.order for each in drawn}) == 24
    np.testing.assert_array_equal(ColorJitter().recolour(IMAGE, Jitter()), IMAGE)
