"""Arrays at another size."""

from collections.abc import Mapping
from typing import Literal

import cv2
import numpy as np

Interpolation = Literal["nearest", "linear", "cubic"]
INTERPOLATIONS: Mapping[str, int] = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
}


def resize(array: np.ndarray, height: int, width: int, interpolation: int) -> np.ndarray:
    """Resizes `[H, W]` or `[H, W, C]` with OpenCV and keeps a last axis of length 1, which OpenCV drops."""
    resized = cv2.resize(np.ascontiguousarray(array), (width, height), interpolation=interpolation)
    return resized.reshape(height, width, *array.shape[2:])


def nearest(array: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns an array `[H, W, ...]` of any type at another size; each pixel is the one at its centre."""
    rows, columns = (
        ((np.arange(wanted) + 0.5) * given / wanted).astype(int)
        for given, wanted in zip(array.shape[:2], (height, width), strict=True)
    )
    return array[rows[:, None], columns]
