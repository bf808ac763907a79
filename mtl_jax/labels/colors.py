"""Colours of drawings."""

from functools import cache

import cv2
import numpy as np

ALPHA = 0.6  # share of a colour that is laid over an image
BOUNDARY = (255, 255, 255)  # colour of the line between two classes
CLASSES = 255  # greatest number of classes

_FIRST = (68, 136, 187)  # colour of class 0, often a background: a calm one
_STEP = 17  # distance of the candidates' levels of red, green and blue
_LIGHTNESS = (35, 85)  # of candidates in Lab: neither black nor white
_CHROMA = (30, 80)  # of candidates in Lab: neither grey nor glaring
_WHITE = np.array([0.9505, 1.0, 1.089])  # D65
_RGB_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


@cache
def class_palette() -> np.ndarray:
    """Returns a colour for each of the class ids 0 to 254, RGB uint8 `[255, 3]`.

    A fixed rule makes them. Candidates are the colours with levels 0, 17, ..., 255 that are neither black, grey nor
    white. Each colour is the candidate that is farthest, in Lab, from the nearest colour before it; so the first n
    colours differ about as much as n colours can.
    """
    levels = np.arange(0, 256, _STEP)
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = to_lab(candidates)
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    usable = (lab[:, 0] >= _LIGHTNESS[0]) & (lab[:, 0] <= _LIGHTNESS[1])
    usable &= (chroma >= _CHROMA[0]) & (chroma <= _CHROMA[1])
    candidates, lab = candidates[usable], lab[usable]
    chosen = [int(np.argmin(((candidates - _FIRST) ** 2).sum(axis=1)))]
    nearest = np.full(len(candidates), np.inf)
    while len(chosen) < CLASSES:
        # Rounded, because the last digits, which differ between machines, must not decide between equals.
        nearest = np.minimum(nearest, np.round(np.linalg.norm(lab - lab[chosen[-1]], axis=1), 3))
        chosen.append(int(nearest.argmax()))
    return candidates[chosen].astype(np.uint8)


def to_lab(rgb: np.ndarray) -> np.ndarray:
    """Converts sRGB colours 0..255, `[N, 3]`, to CIE Lab (D65), float64 `[N, 3]`."""
    share = np.asarray(rgb, np.float64) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    relative = linear @ _RGB_TO_XYZ.T / _WHITE
    root = np.where(relative > (6 / 29) ** 3, np.cbrt(relative), relative / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = root.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def viridis(share: np.ndarray) -> np.ndarray:
    """RGB uint8 `[H, W, 3]` from dark blue to yellow for numbers from 0 to 1, `[H, W]`: the colours of values."""
    return _mapped(share, cv2.COLORMAP_VIRIDIS)


def inferno(share: np.ndarray) -> np.ndarray:
    """RGB uint8 `[H, W, 3]` from black over red to yellow for numbers from 0 to 1, `[H, W]`: the colours of errors."""
    return _mapped(share, cv2.COLORMAP_INFERNO)


def _mapped(share: np.ndarray, color_map: int) -> np.ndarray:
    return cv2.applyColorMap(np.round(255 * share).astype(np.uint8), color_map)[..., ::-1]


def blend(image: np.ndarray, color: np.ndarray | tuple[int, int, int], share: float | np.ndarray = ALPHA) -> np.ndarray:
    """Lays a colour, or a picture of colours, over an image, RGB uint8 `[H, W, 3]`.

    Args:
        image: RGB uint8 `[H, W, 3]`.
        color: A colour, or a picture `[H, W, 3]`.
        share: Weight of the colour, from 0 to 1, as one number or `[H, W, 1]`.
    """
    return np.round((1 - share) * image + share * np.asarray(color)).astype(np.uint8)


def boundary(plane: np.ndarray) -> np.ndarray:
    """Returns the pixels whose right or lower neighbour has another value, bool `[H, W]`."""
    differs = np.zeros(plane.shape, bool)
    differs[:, :-1] |= plane[:, 1:] != plane[:, :-1]
    differs[:-1] |= plane[1:] != plane[:-1]
    return differs
