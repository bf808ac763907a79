"""Colours of drawings."""

from functools import cache

import cv2
import numpy as np

ALPHA = 0.5  # share of a colour that is laid over an image
BOUNDARY = (255, 255, 255)  # colour of the line between two classes


@cache
def voc_palette() -> np.ndarray:
    """The colour map of PASCAL VOC, RGB uint8 `[256, 3]`: the bits of the class id dealt to the channels in turn.

    Class 0 is black and 255, the ignored label, white.
    """
    palette = np.zeros((256, 3), np.uint8)
    classes = np.arange(256)
    for place in range(8):
        for channel in range(3):
            bit = (classes >> (3 * place + channel)) & 1
            palette[:, channel] |= (bit << (7 - place)).astype(np.uint8)
    palette[255:] = 255
    return palette


@cache
def parts_palette() -> np.ndarray:
    """RGB uint8 `[256, 3]` for PASCAL's human parts: background, head, torso, upper and lower arms and legs."""
    palette = np.full((256, 3), 255, np.uint8)
    palette[:7] = [
        (0, 0, 0),
        (220, 60, 60),
        (70, 110, 220),
        (240, 170, 50),
        (250, 225, 110),
        (40, 150, 90),
        (140, 210, 130),
    ]
    return palette


def viridis(share: np.ndarray) -> np.ndarray:
    """RGB uint8 `[H, W, 3]` from dark to bright for numbers from 0 to 1, `[H, W]`."""
    return cv2.applyColorMap(np.round(255 * share).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]


def blend(image: np.ndarray, color: np.ndarray | tuple[int, int, int]) -> np.ndarray:
    """Lays a colour, or a picture of colours, over an image, RGB uint8 `[H, W, 3]`."""
    return np.round((1 - ALPHA) * image + ALPHA * np.asarray(color)).astype(np.uint8)


def boundary(plane: np.ndarray) -> np.ndarray:
    """Returns the pixels whose right or lower neighbour has another value, bool `[H, W]`."""
    differs = np.zeros(plane.shape, bool)
    differs[:, :-1] |= plane[:, 1:] != plane[:, :-1]
    differs[:-1] |= plane[1:] != plane[:-1]
    return differs
