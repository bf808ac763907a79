"""Images as callers give them: paths, PIL images and arrays."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from mtl_jax.codecs import pictures

logger = logging.getLogger(__name__)

ImageLike = str | Path | Image.Image | np.ndarray
_EXPECTED = "give a path, a PIL image, or an array of uint8 with the shape [H, W, 3] (RGB) or [H, W] (grey)"
_PIL_MODES = ("1", "L", "P", "RGB", "CMYK", "YCbCr", "LAB", "HSV")  # of at most 8 bits a channel, and opaque


def as_image(given: Any) -> np.ndarray:
    """Returns an image as RGB uint8 `[H, W, 3]`. Files and PIL images are turned as their EXIF orientation says.

    Args:
        given: Path of a file, PIL image, or array of uint8, `[H, W, 3]` (RGB), `[H, W, 1]` or `[H, W]` (grey).

    Raises:
        TypeError: The value is no image.
        ValueError: The image is empty, has another type or shape, or the file is damaged.
        FileNotFoundError: There is no such file.
    """
    if isinstance(given, str | Path):
        return _file(Path(given))
    if isinstance(given, Image.Image):
        return _pil(given)
    if isinstance(given, np.ndarray):
        return _array(given)
    raise TypeError(f"an image is given as {type(given).__name__}; {_EXPECTED}")


def read(path: Path) -> np.ndarray:
    """Reads an image file as viewers show it, RGB uint8 `[H, W, 3]`, and notes damage that decoders repair.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is no complete image.
    """
    data = path.read_bytes()
    image = pictures.upright(pictures.photograph(data), pictures.orientation(data))
    if reason := pictures.damage(data):
        pictures.note(reason)
    return image


def _file(path: Path) -> np.ndarray:
    path = path.expanduser()
    if not path.is_file():
        kind = "a folder; give the images in it as a list of paths" if path.is_dir() else "not there; check the path"
        raise FileNotFoundError(f"the image {path} is {kind}")
    try:
        with pictures.collect_notes() as notes:
            image = read(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    for text in notes:
        logger.warning("%s: %s", path, text)
    return image


def _pil(image: Image.Image) -> np.ndarray:
    if image.mode not in _PIL_MODES:
        raise ValueError(
            f"the PIL image has the mode {image.mode!r}; convert it to 8 bits without transparency: "
            'image.convert("RGB")'
        )
    return _array(np.asarray(ImageOps.exif_transpose(image).convert("RGB")))


def _array(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8:
        raise ValueError(f"the image is an array of {image.dtype}; {_EXPECTED}, with values from 0 to 255")
    if image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1):
        image = np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    if image.ndim != 3 or image.shape[2] != 3:
        several = "; several images are given as a list" if image.ndim == 4 else ""
        raise ValueError(f"the image is an array with the shape {list(image.shape)}; {_EXPECTED}{several}")
    if not image.size:
        raise ValueError(f"the image is empty: its shape is {list(image.shape)}; {_EXPECTED}")
    return np.ascontiguousarray(image)
