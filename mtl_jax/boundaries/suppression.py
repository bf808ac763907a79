"""Non-maximum suppression of boundary strength."""

import cv2
import numpy as np

_TRIANGLE = np.array([1, 2, 3, 4, 5, 4, 3, 2, 1], np.float32) / 25
_BORDER = np.array([0, 0.2, 0.4, 0.6, 0.8], np.float32)  # factors from the image's border inwards
_MARGIN = np.float32(1.01)  # a pixel is dropped if a neighbour is stronger by this factor


def suppress(strength: np.ndarray) -> np.ndarray:
    """Keeps the pixels that are strongest across their line, like the structured-edge toolbox after detection.

    The direction across a line is computed from the second derivatives of a smoothed copy (triangle filter, radius 4).
    A pixel is dropped if the map, interpolated bilinearly one pixel away on either side, is more than 1 % stronger. The
    five outermost rows and columns are damped by the factors 0, 0.2, ..., 0.8.

    Args:
        strength: Boundary strength in 0..1, float32 `[H, W]`.

    Returns:
        The strength, float32 `[H, W]`, with 0 at the dropped pixels.
    """
    strength = np.asarray(strength, np.float32)
    height, width = strength.shape
    smooth = cv2.sepFilter2D(strength, cv2.CV_32F, _TRIANGLE, _TRIANGLE, borderType=cv2.BORDER_REFLECT)
    dy, dx = _gradient(smooth, 0), _gradient(smooth, 1)
    xx, xy, yy = _gradient(dx, 1), _gradient(dy, 1), _gradient(dy, 0)
    angle = np.mod(np.arctan(yy * np.sign(-xy) / (xx + np.float32(1e-5))), np.float32(np.pi))
    cosine, sine = np.cos(angle), np.sin(angle)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    kept = strength.copy()
    for sign in (np.float32(1), np.float32(-1)):
        neighbour = _bilinear(strength, y + sign * sine, x + sign * cosine)
        kept[_MARGIN * strength < neighbour] = 0
    for i, factor in enumerate(_BORDER):
        if i < width:
            kept[:, i] *= factor
            kept[:, width - 1 - i] *= factor
    for i, factor in enumerate(_BORDER):
        if i < height:
            kept[i] *= factor
            kept[height - 1 - i] *= factor
    return kept


def _gradient(x: np.ndarray, axis: int) -> np.ndarray:
    """Computes central differences, one-sided at the borders; 0 along an axis of length 1."""
    return np.gradient(x, axis=axis) if x.shape[axis] > 1 else np.zeros_like(x)


def _bilinear(image: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Interpolates an image `[H, W]` bilinearly at positions that are clipped to just inside of it."""
    height, width = image.shape
    y = np.clip(y, np.float32(0), np.float32(max(height - 1.001, 0)))
    x = np.clip(x, np.float32(0), np.float32(max(width - 1.001, 0)))
    top, left = y.astype(np.int32), x.astype(np.int32)
    bottom, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    dy, dx = y - top.astype(np.float32), x - left.astype(np.float32)
    one = np.float32(1)
    upper = image[top, left] * (one - dx) + image[top, right] * dx
    lower = image[bottom, left] * (one - dx) + image[bottom, right] * dx
    return upper * (one - dy) + lower * dy
