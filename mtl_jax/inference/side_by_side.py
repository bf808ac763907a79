"""Pictures of a video: every frame beside its maps, with keys of the colours."""

import dataclasses
import math

import numpy as np

from mtl_jax.drawing import keys, maps, text
from mtl_jax.inference.maps import Map, Maps
from mtl_jax.inference.placement import Size
from mtl_jax.labels.keys import Key, Style, Swatches

_IN_A_ROW = 3  # pictures
_GAP = 8  # pixels between pictures
_NARROWEST = 240  # width of a picture in pixels: keys do not fit below narrower ones
_STYLE: Style = "map"


class SideBySide:
    """Draws frames of one size. All pictures have one size, and a colour means nearly the same in all frames.

    Args:
        long_side: Greatest width and height of the pictures in pixels, except where keys need more.
    """

    def __init__(self, long_side: int):
        self._long_side = long_side
        self._ranges: dict[str, tuple[float, float]] = {}
        self._order: dict[str, int] = {}  # of names in keys, by their first frame
        self._key_height = 0

    def draw(self, frame: np.ndarray, predicted: Maps) -> np.ndarray:
        """Draws a frame, its maps and their keys in rows of at most three, RGB uint8 `[H', W', 3]` with even sides.

        Args:
            frame: RGB uint8 `[H, W, 3]`.
            predicted: Maps of the frame.
        """
        columns = min(len(predicted) + 1, _IN_A_ROW)
        rows = math.ceil((len(predicted) + 1) / columns)
        height, width = self._cell(frame, columns, rows)
        image = maps.thumbnail(frame, height, width)
        pictures = [("frame", image, np.full((0, width, 3), 255, np.uint8))]
        for task, one in predicted.items():
            pictures.append((task, *self._picture_and_key(task, one, image)))
        if not self._key_height:
            self._key_height = max(keys.LINES * text.LINE, *(key.shape[0] for _, _, key in pictures))
        cell = (text.LINE + height + _GAP + self._key_height, width + _GAP)
        size = (rows * cell[0], columns * cell[1])
        whole = np.full((size[0] + size[0] % 2, size[1] + size[1] % 2, 3), 255, np.uint8)  # codecs want even sides
        for index, (name, picture, key) in enumerate(pictures):
            top, left = index // columns * cell[0], index % columns * cell[1]
            text.write(whole[top : top + text.LINE, left : left + width], name)
            top += text.LINE
            whole[top : top + height, left : left + width] = picture
            top += height + _GAP
            shown = key[: self._key_height]
            whole[top : top + shown.shape[0], left : left + width] = shown
        return whole

    def _cell(self, frame: np.ndarray, columns: int, rows: int) -> Size:
        """Returns the size of a picture."""
        height, width = frame.shape[:2]
        around = text.LINE + _GAP + keys.LINES * text.LINE
        room_down, room_across = self._long_side / rows - around, self._long_side / columns - _GAP
        factor = min(1.0, room_down / height, room_across / width)
        factor = max(factor, _NARROWEST / width)
        return (max(1, round(height * factor)), round(width * factor))

    def _picture_and_key(self, task: str, one: Map, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        height, width = image.shape[:2]
        layer = maps.layer(task, one.kind.as_prediction(one.decided), height, width, is_label=False)
        limits = self._limits(task, layer)
        key = maps.key([layer], _STYLE, one.class_names, one.conventions, limits)
        return maps.draw(layer, image, _STYLE, limits), keys.draw(self._in_order(key), width)

    def _limits(self, task: str, layer: maps.Layer) -> tuple[float | None, float | None]:
        """Returns the values of the first and the last colour: the range over all frames so far."""
        low, high = maps.limits([layer])
        if low is None or high is None:
            return (low, high)
        before = self._ranges.get(task, (low, high))
        self._ranges[task] = (min(low, before[0]), max(high, before[1]))
        return self._ranges[task]

    def _in_order(self, key: Key) -> Key:
        """Returns a key whose names keep their order from frame to frame."""
        if not isinstance(key, Swatches):
            return key
        for _, name in key.entries:
            self._order.setdefault(name, len(self._order))
        return dataclasses.replace(key, entries=tuple(sorted(key.entries, key=lambda entry: self._order[entry[1]])))
