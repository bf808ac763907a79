"""Drawings of keys (`mtl_jax.labels.keys`): named colours, scales with ticks, the ball of normals."""

import math
from collections.abc import Sequence
from functools import singledispatch

import cv2
import numpy as np

from mtl_jax.drawing import text
from mtl_jax.drawing.canvas import MARGIN, blank
from mtl_jax.labels.keys import Ball, Bar, Color, Key, Note, Swatches

LINES = 5  # greatest height of a key in lines of text, where nothing else is said
SWATCH = 14  # height and width of a coloured square, in pixels
_GAP = 5  # pixels between a square and its name
_SCALE = 14  # height of a scale in pixels
_WIDEST_SCALE = 420  # pixels
_TICKS = 5  # greatest number of ticks of a scale
_TICK = 4  # length of a tick in pixels
_FRAME = 150  # grey level of the lines around colours


def draw(key: Key, width: int, lines: int = LINES) -> np.ndarray:
    """Draws a key, RGB uint8 `[H, width, 3]`.

    Args:
        key: What the colours mean.
        width: Width of the drawing in pixels.
        lines: Greatest number of lines of text. A key that needs more says how many names are left out.
    """
    return _draw(key, width, lines)


@singledispatch
def _draw(key: Key, width: int, lines: int) -> np.ndarray:
    raise TypeError(f"no drawing for a key of the type {type(key).__name__}; the types are in mtl_jax.labels.keys")


@_draw.register
def _swatches(key: Swatches, width: int, lines: int) -> np.ndarray:
    """Draws the entries in columns, from top to bottom; what has no room is counted."""
    needed = max(SWATCH + _GAP + text.width(name) for _, name in key.entries)
    columns = max(1, min((width + 2 * MARGIN) // (needed + 2 * MARGIN), len(key.entries)))
    room = columns * lines
    shown: list[tuple[Color | np.ndarray | None, str]] = [*key.entries]
    if len(shown) > room:
        shown = [*shown[: room - 1], (None, f"+ {len(shown) - room + 1} more")]
    rows = math.ceil(len(shown) / columns)
    drawing = blank(rows * text.LINE, width)
    pitch = min(needed + 2 * MARGIN, (width + 2 * MARGIN) // columns)
    for i, (color, name) in enumerate(shown):
        x, y = i // rows * pitch, i % rows * text.LINE
        if color is not None:
            _square(drawing, x, y + 3, color)
            x += SWATCH + _GAP
        end = min(i // rows * pitch + pitch - MARGIN, width)
        text.write(drawing[y : y + text.LINE, x:end], name)
    return drawing


@_draw.register
def _bar(key: Bar, width: int, lines: int) -> np.ndarray:
    """Draws a scale with ticks below and its title above."""
    title = [key.title] if key.title else []
    drawing = blank((len(title) + 1) * text.LINE + _SCALE + _TICK, width)
    for line in title:
        text.write(drawing[: text.LINE], line)
    top, length = len(title) * text.LINE, min(width, _WIDEST_SCALE)
    row = cv2.resize(key.colors[None], (length, 1), interpolation=cv2.INTER_NEAREST)
    drawing[top : top + _SCALE, :length] = row
    values = ticks(key.low, key.high)
    room = width  # left of the numbers so far; the last number, which has the unit, comes first
    for value in reversed(values):
        x = round((value - key.low) / ((key.high - key.low) or 1) * (length - 1))
        label = f"{value:g}"
        if value == values[-1]:
            label += _unit(key.unit) + " or more" * key.clipped
        needed = text.width(label)
        start = max(min(x - needed // 2, width - needed), 0)
        drawing[top + _SCALE : top + _SCALE + _TICK, x] = _FRAME
        if start + needed <= room:
            y = top + _SCALE + _TICK
            text.write(drawing[y : y + text.LINE, start : start + needed], label)
            room = start - MARGIN
    return drawing


@_draw.register
def _ball(key: Ball, width: int, lines: int) -> np.ndarray:
    """Draws the ball, with its title above and the axes beside it."""
    size = key.picture.shape[0]
    drawing = blank(text.LINE + max(size, len(key.lines) * text.LINE), width)
    text.write(drawing[: text.LINE], key.title)
    drawing[text.LINE : text.LINE + size, :size] = key.picture
    for i, line in enumerate(key.lines, start=1):
        text.write(drawing[i * text.LINE : (i + 1) * text.LINE, size + 2 * MARGIN :], line)
    return drawing


@_draw.register
def _note(key: Note, width: int, lines: int) -> np.ndarray:
    return paragraph(text.wrapped(key.text, width)[:lines], width)


def paragraph(lines: Sequence[str], width: int) -> np.ndarray:
    """Writes lines of text below each other, RGB uint8 `[H, width, 3]`."""
    drawing = blank(len(lines) * text.LINE, width)
    for i, line in enumerate(lines):
        text.write(drawing[i * text.LINE : (i + 1) * text.LINE], line)
    return drawing


def ticks(low: float, high: float) -> list[float]:
    """Returns round numbers from `low` to `high`, multiples of 1, 2 or 5 times a power of ten; at least one."""
    if not high > low:
        return [low]
    coarse = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(coarse))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= coarse * (1 - 1e-9))
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6)
    return [round(i * step, digits) for i in range(first, last + 1)] or [low]


def _unit(unit: str) -> str:
    return unit if unit in ("", "°") else f" {unit}"


def _square(drawing: np.ndarray, x: int, y: int, color: Color | np.ndarray) -> None:
    drawing[y : y + SWATCH, x : x + SWATCH] = _FRAME
    drawing[y + 1 : y + SWATCH - 1, x + 1 : x + SWATCH - 1] = color
