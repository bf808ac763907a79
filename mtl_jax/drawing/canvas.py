"""A white sheet with captioned pictures in rows and columns."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtl_jax.drawing import text

MARGIN = 8  # pixels between pictures
_FRAME = 200  # grey level of the line around a picture, for pictures that are white at their border


@dataclass(frozen=True)
class Cell:
    """A picture with lines of text above it.

    Attributes:
        lines: Texts, one for each line.
        picture: RGB uint8 `[H, W, 3]`.
        framed: A grey line is drawn around the picture.
    """

    lines: tuple[str, ...]
    picture: np.ndarray
    framed: bool = True


def blank(height: int, width: int) -> np.ndarray:
    """Returns a white picture, RGB uint8 `[height, width, 3]`."""
    return np.full((height, width, 3), 255, np.uint8)


def grid(rows: Sequence[Sequence[Cell | None]], column: int) -> np.ndarray:
    """Draws rows of cells, RGB uint8 `[H, W, 3]`.

    Args:
        rows: Cells from left to right, at least one; None leaves a place empty. A row is as high as its highest cell.
        column: Width of a column in pixels. No picture is wider.
    """
    heights = [max(_height(cell) for cell in row if cell is not None) for row in rows]
    width = MARGIN + max(map(len, rows)) * (column + MARGIN)
    canvas = blank(MARGIN + sum(height + MARGIN for height in heights), width)
    top = MARGIN
    for row, height in zip(rows, heights, strict=True):
        for i, cell in enumerate(row):
            if cell is not None:
                _place(canvas, top, MARGIN + i * (column + MARGIN), column, cell)
        top += height + MARGIN
    return canvas


def _height(cell: Cell) -> int:
    return len(cell.lines) * text.LINE + cell.picture.shape[0]


def _place(canvas: np.ndarray, y: int, x: int, column: int, cell: Cell) -> None:
    for line in cell.lines:
        text.write(canvas[y : y + text.LINE, x : x + column], line)
        y += text.LINE
    height, width = cell.picture.shape[:2]
    if cell.framed:
        canvas[y - 1 : y + height + 1, x - 1 : x + width + 1] = _FRAME
    canvas[y : y + height, x : x + width] = cell.picture
