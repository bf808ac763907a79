"""Keys of drawings in a page."""

import numpy as np
import pytest

from mtl_jax.labels.keys import Ball, Bar, Note, Swatches
from mtl_jax.reports.data_uris import DataUris
from mtl_jax.reports.key_data import key_data


def test_swatches_are_colours_or_pictures_and_the_rest_is_counted():
    entries = [((255, 0, 16), "sky"), (np.array([0, 1, 2], np.uint8), "sea"), (np.zeros((12, 12, 3), np.uint8), "void")]
    pictures = DataUris()
    data = key_data(Swatches((*entries, *[((9, 9, 9), f"class {i}") for i in range(20)])), pictures)
    assert (data["form"], len(data["entries"]), data["more"]) == ("swatches", 12, 11)
    assert data["entries"][:3] == [
        {"name": "sky", "color": "#ff0010", "picture": None},
        {"name": "sea", "color": "#000102", "picture": None},
        {"name": "void", "color": None, "picture": 0},
    ]
    assert len(pictures.uris) == 1


def test_scales_keep_their_ends():
    colors = np.arange(768, dtype=np.int64).reshape(256, 3).astype(np.uint8)
    data = key_data(Bar(colors, 0.5, 4.25, "m", "depth", clipped=True), DataUris())
    assert (data["low"], data["high"], data["unit"], data["title"], data["clipped"]) == (
        "0.5",
        "4.25",
        "m",
        "depth",
        True,
    )
    assert (data["stops"][0], data["stops"][-1]) == ("#000102", "#fdfeff")


def test_balls_and_notes():
    pictures = DataUris()
    data = key_data(Ball(np.zeros((4, 4, 3), np.uint8), "direction", ("x: red",)), pictures)
    assert data == {"form": "ball", "picture": 0, "title": "direction", "lines": ("x: red",)}
    assert key_data(Note("heat"), pictures) == {"form": "note", "text": "heat"}


def test_other_keys_are_refused():
    with pytest.raises(TypeError, match="a page cannot show a key of the type str"):
        key_data("colours", DataUris())
