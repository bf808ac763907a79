"""Encoding of predicted maps as files that other tools read."""

import io

import numpy as np
from PIL import Image


def palette_png(ids: np.ndarray, colours: np.ndarray) -> bytes:
    """Encodes class ids as a PNG with a palette, whose indices are the ids.

    Args:
        ids: Class ids, uint8 `[H, W]`.
        colours: RGB colours of the classes, uint8 `[number of classes, 3]`.
    """
    image = Image.fromarray(np.ascontiguousarray(ids))
    image.putpalette(np.ascontiguousarray(colours).tobytes())
    content = io.BytesIO()
    image.save(content, "png")
    return content.getvalue()


def npy(array: np.ndarray) -> bytes:
    """Encodes an array as a .npy file."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    return content.getvalue()
