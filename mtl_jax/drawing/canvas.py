"""A white sheet with captioned pictures in rows and columns."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

CAPTION = 22  # pixels of a line of text
MARGIN = 8  # pixels between pictures
_FONT, _FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.5
_FRAME = 200  # grey level of the line around a picture, for pictures that are white at their border


@dataclass(frozen=True)
class Cell:
    """A picture with lines of text above it.

    Attributes:
        lines: Texts, one for each line.
        picture: RGB uint8 `[H, W, 3]`.
    """

    lines: tuple[str, ...]
    picture: np.ndarray


def grid(rows: Sequence[Sequence[Cell | None]], *, narrowest: int = 0, framed: bool = False) -> np.ndarray:
    """Draws rows of cells, RGB uint8 `[H, W, 3]`.

    Args:
        rows: Cells from left to right; None leaves a place empty. Rows may have different heights, and cells of one row
            have as many lines as the first.
        narrowest: Least width of a column in pixels; all columns are as wide as the widest picture.
        framed: A grey line is drawn around every picture.
    """
    cells = [cell for row in rows for cell in row if cell is not None]
    column = max(narrowest, *(cell.picture.shape[1] for cell in cells))
    lines = len(cells[0].lines)
    heights = [max(cell.picture.shape[0] for cell in row if cell is not None) for row in rows]
    width = MARGIN + max(map(len, rows)) * (column + MARGIN)
    canvas = np.full((MARGIN + sum(lines * CAPTION + height + MARGIN for height in heights), width, 3), 255, np.uint8)
    top = MARGIN
    for row, row_height in zip(rows, heights, strict=True):
        for i, cell in enumerate(row):
            if cell is None:
                continue
            x = MARGIN + i * (column + MARGIN)
            for number, text in enumerate(cell.lines):
                y = top + number * CAPTION
                caption(canvas[y : y + CAPTION, x : x + column], text)
            y, (height, picture_width) = top + lines * CAPTION, cell.picture.shape[:2]
            if framed:
                canvas[y - 1 : y + height + 1, x - 1 : x + picture_width + 1] = _FRAME
            canvas[y : y + height, x : x + picture_width] = cell.picture
        top += lines * CAPTION + row_height + MARGIN
    return canvas


def text_width(text: str) -> int:
    """Returns how many pixels a text takes at the size of captions."""
    return int(cv2.getTextSize(text, _FONT, _FONT_SCALE, 1)[0][0])


def caption(strip: np.ndarray, text: str) -> None:
    """Writes a text on white into a strip uint8 `[CAPTION, W, 3]`, smaller if it would not fit."""
    scale = _FONT_SCALE * min(1.0, strip.shape[1] / max(text_width(text), 1))
    drawn = np.full(strip.shape, 255, np.uint8)  # OpenCV needs contiguous memory
    cv2.putText(drawn, text, (0, CAPTION - 7), _FONT, scale, (40, 40, 40), 1, cv2.LINE_AA)
    strip[:] = drawn
