"""Lines one pixel wide at another size."""

import math

import numpy as np

# Neighbours (down, right) to which a line may run on; the four others are the same pairs the other way round.
_STRAIGHT = ((0, 1), (1, 0))
_DIAGONAL = ((1, 1), (1, -1))


def redraw(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Draws the lines of a map at another size, and keeps their width of a pixel.

    Each pixel of a line moves to its new place, and what lies between neighbours is filled. So a line has no gaps at a
    larger size, does not become dots at a smaller one, and stays one pixel wide. Where several pixels fall into one,
    the largest value counts.

    Args:
        values: The map, `[H, W]`, 0 where there is no line.
        height: Height of the result.
        width: Width of the result.

    Returns:
        The lines, `[height, width]`, in the type of `values`.
    """
    scale = np.array([height / values.shape[0], width / values.shape[1]])
    parts = max(1, math.ceil(scale.max()))
    framed = np.pad(values, 1)  # no line runs on behind the border
    rows, columns = np.nonzero(framed)
    own = framed[rows, columns]
    drawn = np.zeros((height, width), values.dtype)
    _put(drawn, scale, rows, columns, own)
    if parts == 1:
        return drawn
    for down, right in (*_STRAIGHT, *_DIAGONAL):
        other = framed[rows + down, columns + right]
        runs_on = other > 0
        if (down, right) in _DIAGONAL:  # where a line turns, it runs over the corner
            runs_on &= (framed[rows + down, columns] == 0) & (framed[rows, columns + right] == 0)
        weakest = np.minimum(own, other)[runs_on]
        for part in range(1, parts):
            share = part / parts
            _put(drawn, scale, rows[runs_on] + share * down, columns[runs_on] + share * right, weakest)
    return drawn


def _put(drawn: np.ndarray, scale: np.ndarray, rows: np.ndarray, columns: np.ndarray, values: np.ndarray) -> None:
    """Writes values at the places to which pixels of the framed map move."""
    # Pixel 0 of the map is pixel 1 of the framed one, and its centre lies half a pixel from the border.
    places = [
        np.minimum(((index - 0.5) * factor).astype(np.intp), length - 1)
        for index, factor, length in zip((rows, columns), scale, drawn.shape, strict=True)
    ]
    np.maximum.at(drawn, tuple(places), values)
