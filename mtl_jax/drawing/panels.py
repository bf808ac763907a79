"""Panels: an image, its predictions and its labels side by side, with keys of the colours."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from mtl_jax import tasks as task_table
from mtl_jax.drawing import keys, maps, text
from mtl_jax.drawing.canvas import MARGIN, Cell, grid
from mtl_jax.drawing.maps import colorize
from mtl_jax.labels import Conventions
from mtl_jax.labels.keys import Style, Swatches

__all__ = ["LONG_SIDE", "colorize", "panel"]

LONG_SIDE = 1600  # pixels, of a whole panel
NARROWEST = 210  # least width of a column in pixels; names of classes do not fit into narrower ones
_FLATTEST = 16  # least height of a picture in pixels
_ENLARGED = 320  # pixels up to which the longer side of a smaller image is enlarged
_ASPECT = 0.75  # height of a panel in relation to its width, at most, unless the pictures stand upright
_OWN = Conventions()  # of data of one's own
_KEY = keys.LINES * text.LINE
_ALIKE = 0.9  # widths of pictures in this relation count as equally good
_OF_KEY = 2  # pictures that share the first key: prediction and label


@dataclass(frozen=True)
class _Layout:
    """The arrangement of a panel.

    Attributes:
        columns: Number of columns.
        beside: The pictures of a task stand side by side; otherwise below each other.
        height: Height of a picture in pixels.
        width: Width of a picture in pixels.
    """

    columns: int
    beside: bool
    height: int
    width: int

    @property
    def column(self) -> int:
        """Width of a column in pixels."""
        return max(NARROWEST, self.width)


def panel(
    image: Any,
    predictions: Mapping[str, Any],
    labels: Mapping[str, Any] | None = None,
    *,
    names: Mapping[str, Sequence[str]] | None = None,
    conventions: Conventions = _OWN,
    style: Style = "map",
    errors: bool = False,
    long_side: int = LONG_SIDE,
    caption: str = "image",
) -> np.ndarray:
    """Draws an image, its predictions and its labels, RGB uint8 `[H', W', 3]`.

    The image comes first. The tasks follow in the order of the task table, each with its prediction, its label, a key
    of the colours, and its errors if they are wanted. A task takes a column, or a row where that suits the pictures
    better; many columns go on below. The prediction and the label of a task share one range of colours. Pixels without
    a value are hatched.

    Args:
        image: RGB uint8 `[H, W, 3]`.
        predictions: {task: one image's prediction}, of any size.
        labels: {task: one image's label}, of any size; where a label is missing or None its place stays empty, and
            labels of tasks without a prediction are left out.
        names: {task: names of its classes}, for the keys.
        conventions: Label conventions of the data set, for the keys.
        style: "map" draws the values alone, "overlay" lays classes, saliency and edges over the image.
        errors: Adds a picture of the errors to each task that has a label.
        long_side: Greatest height and width of the panel in pixels.
        caption: Text above the image.

    Raises:
        ValueError: The image is not RGB uint8, there is no such task, a prediction or a label is not that of a single
            image, or `long_side` is too small for so many pictures.
    """
    image = maps.check_image(image, "the image")
    known = {task: value for task, value in (labels or {}).items() if task in predictions and value is not None}
    shown = task_table.ordered(predictions)
    pictures, drawn_keys = 1 + bool(known) + (errors and bool(known)), 1 + (errors and bool(known))
    layout = _layout(len(shown), pictures, drawn_keys, image.shape[:2], long_side)
    small = maps.thumbnail(image, layout.height, layout.width)
    groups, complete = [], True
    for task in shown:
        layers = [maps.layer(task, predictions[task], layout.height, layout.width, is_label=False)]
        if task in known:
            layers.append(maps.layer(task, known[task], layout.height, layout.width, is_label=True))
        complete = complete and all(map(maps.complete, layers))
        limits = maps.limits(layers)
        cells: list[Cell | None] = [
            Cell((f"{task}: {title}",), maps.draw(each, small, style, limits))
            for each, title in zip(layers, ("prediction", "ground truth"), strict=False)
        ]
        key = maps.key(layers, style, (names or {}).get(task, ()), conventions, limits)
        group = _Group([*cells, *[None] * (1 + bool(known) - len(cells))], [keys.draw(key, layout.column)])
        if errors and known:
            group.add_errors(task, predictions[task], known.get(task), layout)
        groups.append(group)
    first = _Group([Cell((caption,), small)], [])
    if not complete:
        square = maps.hatching(keys.SWATCH - 2, keys.SWATCH - 2)
        first.keys.append(keys.draw(Swatches(((square, "no label" if known else "no value"),)), layout.column))
    rows = _beside(first, groups) if layout.beside else _below([first, *groups], layout.columns)
    return grid([row for row in rows if any(row)], layout.column)


@dataclass
class _Group:
    """The pictures of a task, or the image.

    Attributes:
        pictures: The prediction, the label and the errors, None where one is missing.
        keys: The key of the prediction and the label, and that of the errors.
    """

    pictures: list[Cell | None]
    keys: list[np.ndarray | None]

    def add_errors(self, task: str, prediction: Any, label: Any | None, layout: _Layout) -> None:
        """Adds the picture of the errors and its key, None for each where there is none."""
        error = None if label is None else maps.errors(task, prediction, label)
        if error is None:
            self.pictures.append(None)
            self.keys.append(None)
            return
        picture = maps.draw_errors(error, layout.height, layout.width)
        self.pictures.append(Cell((f"{task}: {error.text}",), picture))
        self.keys.append(keys.draw(error.key(), layout.column))

    def key(self, index: int) -> Cell | None:
        """Returns the cell of a key, None where there is none."""
        drawn = self.keys[index] if index < len(self.keys) else None
        return None if drawn is None else Cell((), drawn, framed=False)

    def column(self) -> list[Cell | None]:
        """Returns the cells from top to bottom: the prediction, the label, their key, the errors, their key."""
        two = [*self.pictures[:_OF_KEY], *[None] * (_OF_KEY - len(self.pictures))]
        return [*two, self.key(0), *self.pictures[_OF_KEY:], self.key(1)]


def _below(groups: Sequence[_Group], count: int) -> Iterator[list[Cell | None]]:
    """Yields the rows of a panel with a column for each group, `count` of them side by side."""
    for start in range(0, len(groups), count):
        yield from map(list, zip_longest(*(group.column() for group in groups[start : start + count])))


def _beside(first: _Group, groups: Sequence[_Group]) -> Iterator[list[Cell | None]]:
    """Yields the rows of a panel with the image at the left and a row for each group."""
    for i, group in enumerate(groups):
        image, key = (first.pictures[0], first.key(0)) if i == 0 else (None, None)
        pictures = [image, *group.pictures]
        yield pictures
        yield [key, group.key(0), None, group.key(1)][: len(pictures)]


def _layout(tasks: int, pictures: int, drawn_keys: int, size: tuple[int, ...], long_side: int) -> _Layout:
    """Returns the flattest layout among those with about the largest pictures.

    Args:
        tasks: Number of tasks.
        pictures: Number of pictures of a task.
        drawn_keys: Number of keys of a task.
        size: Height and width of the image.
        long_side: Greatest height and width of the panel in pixels.

    Raises:
        ValueError: No layout fits.
    """
    height, width = size
    enlarge = max(1.0, _ENLARGED / max(height, width))
    tall = long_side if height > width else round(_ASPECT * long_side)
    # Columns, rows of groups, and pictures and keys below each other in a group.
    shapes = [(count, False, math.ceil((1 + tasks) / count), pictures, drawn_keys) for count in range(1, tasks + 2)]
    shapes += [(1 + pictures, True, tasks, 1, 1)] * (pictures > 1)
    fitting: list[tuple[int, int, _Layout]] = []  # with the pictures below each other, and the columns
    for columns, beside, rows, deep, deep_keys in shapes:
        across = (long_side - MARGIN) // columns - MARGIN
        # Keys are counted at their greatest height, so that the panel is never higher than allowed.
        spent = deep * (text.LINE + MARGIN) + deep_keys * (_KEY + MARGIN)
        down = ((tall - MARGIN) // rows - spent) // deep
        if across < NARROWEST or down < _FLATTEST:
            continue
        scale = min(across / width, down / height, enlarge)
        layout = _Layout(columns, beside, max(1, round(scale * height)), max(1, round(scale * width)))
        fitting.append((rows * deep, columns, layout))
    if not fitting:
        raise ValueError(
            f"a panel of {tasks} tasks with {pictures} pictures each does not fit into long_side={long_side} pixels; "
            "give a larger long_side, or fewer tasks"
        )
    largest = max(layout.width for *_, layout in fitting)
    return min((each for each in fitting if each[2].width >= _ALIKE * largest), key=lambda each: each[:2])[2]
