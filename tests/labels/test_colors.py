"""Colours of classes and of values."""

import numpy as np
import pytest

from mtl_jax.labels import ClassIds, colors


def nearest(lab):
    """The distance of each colour from the nearest other one."""
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    np.fill_diagonal(apart, np.inf)
    return apart.min()


def test_no_class_looks_like_another_one():
    lab = colors.to_lab(colors.class_palette())
    assert len(lab) == 255  # 255 is no class
    assert nearest(lab[:7]) > 50  # parts of people
    assert nearest(lab[:21]) > 33  # PASCAL
    assert nearest(lab[:40]) > 23  # NYUD
    assert nearest(lab[:150]) > 13
    assert nearest(lab) > 10


def test_no_class_looks_like_a_pixel_without_a_label():
    greys = colors.to_lab(np.repeat(np.arange(256)[:, None], 3, axis=1))
    lab = colors.to_lab(colors.class_palette())
    assert np.linalg.norm(lab[:, None] - greys[None], axis=-1).min() >= 30


def test_colors_of_classes_stay_the_same():
    """Palettes in files that people have must mean the same tomorrow."""
    assert colors.class_palette()[[0, 1, 2, 3, 20, 39, 254]].tolist() == [
        [68, 136, 187],
        [238, 204, 34],
        [238, 34, 85],
        [0, 238, 170],
        [255, 136, 119],
        [0, 153, 85],
        [255, 153, 119],
    ]


def test_the_palette_of_a_kind():
    palette = ClassIds().palette(40)
    assert palette.shape == (40, 3)
    assert palette.dtype == np.uint8
    np.testing.assert_array_equal(palette, colors.class_palette()[:40])
    palette[:] = 0  # a copy
    assert colors.class_palette()[0].any()
    with pytest.raises(ValueError, match="palette of 256 colours was asked for; class ids allow 0 to 255"):
        ClassIds().palette(256)


def test_lab_of_known_colors():
    known = {(255, 255, 255): (100, 0, 0), (0, 0, 0): (0, 0, 0), (255, 0, 0): (53.24, 80.09, 67.20)}
    np.testing.assert_allclose(colors.to_lab(np.array(list(known))), list(known.values()), atol=0.05)


def test_blending():
    image = np.full((1, 2, 3), 100, np.uint8)
    half = np.array([[[0.5], [1.0]]])
    assert colors.blend(image, (200, 0, 100), half).tolist() == [[[150, 50, 100], [200, 0, 100]]]
