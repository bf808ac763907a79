"""Keys of colours and the text in pictures."""

import numpy as np
import pytest

from mtl_jax.drawing import keys, text
from mtl_jax.labels import Conventions, UnitVectors
from mtl_jax.labels.keys import Ball, Bar, Note, Swatches
from tests.drawing.search import shows

RAMP = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
CLASSES = Swatches(tuple(((10 * i, 200, 50), f"class {i}") for i in range(20)))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.71, 9.95, [2, 4, 6, 8]),
        (1.5, 6.2, [2, 3, 4, 5, 6]),
        (-3, 2, [-3, -2, -1, 0, 1, 2]),
        (0, 0.0004, [0, 0.0001, 0.0002, 0.0003, 0.0004]),
        (1200, 9000, [2000, 4000, 6000, 8000]),
        (3, 3, [3]),
    ],
)
def test_ticks_are_round_numbers(low, high, expected):
    assert keys.ticks(low, high) == expected


def test_a_scale_has_its_title_its_numbers_and_its_unit():
    drawn = keys.draw(Bar(RAMP, 0.71, 9.95, "m", "distance"), 300)
    for word in ("distance", "2", "4", "6", "8 m"):
        assert shows(drawn, word)
    assert not shows(drawn, "or more")
    row = drawn[text.LINE + 3].astype(int)
    assert (np.diff(row[:, 0]) >= 0).all()
    assert row[0, 0] == 0
    assert row[-1, 0] == 255
    assert shows(keys.draw(Bar(RAMP, 0, 20, "°", "angle", clipped=True), 300), "20° or more")


def test_numbers_of_a_narrow_scale_do_not_overlap():
    drawn = keys.draw(Bar(RAMP, 0, 50000, "m", clipped=True), 150)
    assert shows(drawn, "50000 m or more")
    assert not shows(drawn, "40000")


def test_names_of_classes_and_how_many_are_left_out():
    drawn = keys.draw(CLASSES, 220, lines=5)
    assert drawn.shape == (5 * text.LINE, 220, 3)
    for i in range(9):
        assert shows(drawn, f"class {i}")
        assert (drawn == (10 * i, 200, 50)).all(axis=-1).sum() == (keys.SWATCH - 2) ** 2
    assert shows(drawn, "+ 11 more")
    assert not shows(drawn, "class 9")
    assert not shows(keys.draw(CLASSES, 220, lines=10), "more")
    few = keys.draw(Swatches(CLASSES.entries[:2]), 220)
    assert few.shape[0] == text.LINE  # beside each other


def test_a_long_name_is_shortened():
    drawn = keys.draw(Swatches((((1, 2, 3), "a very long name of a class that nobody can read"),)), 100)
    assert drawn.shape == (text.LINE, 100, 3)
    assert (drawn == (1, 2, 3)).all(axis=-1).any()


def test_the_ball_has_the_colors_of_the_normals():
    kind = UnitVectors()
    key = kind.key([], style="map", names=(), conventions=Conventions(axes="opencv"), low=None, high=None)
    assert isinstance(key, Ball)
    assert key.lines[:3] == ("red: x right", "green: y down", "blue: z forward")
    size = len(key.picture)
    facing, right, down = key.picture[size // 2, size // 2], key.picture[size // 2, -3], key.picture[-3, size // 2]
    assert np.abs(facing.astype(int) - (128, 128, 0)).max() <= 3
    assert right[0] > 240
    assert down[1] > 240
    assert (key.picture[0, 0] == 255).all()
    drawn = keys.draw(key, 300)
    assert shows(drawn, "direction that a surface faces")
    assert shows(drawn, "blue: z forward")
    up = kind.key([], style="map", names=(), conventions=Conventions(axes="z-up"), low=None, high=None)
    assert isinstance(up, Ball)
    assert up.picture[3, size // 2, 2] > 240
    unknown = kind.key([], style="map", names=(), conventions=Conventions(), low=None, high=None)
    assert isinstance(unknown, Note)


def test_texts_are_wrapped():
    drawn = keys.draw(Note("one two three and four five seven eight"), 90)
    assert drawn.shape == (4 * text.LINE, 90, 3)
    for word in ("one two", "three and", "seven eight"):
        assert shows(drawn, word)


def test_texts_that_do_not_fit_keep_their_ends():
    name = "a_folder_with_many_photographs_000123"
    short = text.fitted(name, 150)
    assert text.width(short) <= 150
    assert short.startswith("a_f")
    assert short.endswith("123")
    assert "…" in short
    assert text.fitted(name, text.width(name)) == name
    assert text.fitted(name, 1) == ""


def test_letters_that_the_font_lacks():
    assert text.width("Tür") == text.width("Tur")
    assert text.width("Straße") == text.width("Strasse")
    assert text.width("道路") == text.width("??")
