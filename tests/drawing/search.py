"""Looks for texts in pictures."""

import cv2
import numpy as np

from mtl_jax.drawing import text


def shows(picture: np.ndarray, words: str) -> bool:
    """Returns True if a text stands in a picture, RGB uint8 `[H, W, 3]`."""
    template = np.full((text.LINE, text.width(words), 3), 255, np.uint8)
    text.write(template, words)
    template = template[:-1]  # the frame of a picture may run through the last row
    if picture.shape[0] < template.shape[0] or picture.shape[1] < template.shape[1]:
        return False
    distance = cv2.matchTemplate(picture[..., 0], template[..., 0], cv2.TM_SQDIFF)
    _, _, (x, y), _ = cv2.minMaxLoc(distance)  # the distance itself has rounding errors
    return np.array_equal(picture[y : y + template.shape[0], x : x + template.shape[1]], template)
