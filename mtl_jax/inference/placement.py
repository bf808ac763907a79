"""Ways to bring an image to the size of a network's input."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import cv2
import numpy as np

from mtl_jax.data import augmentation, placing

Size = tuple[int, int]  # height and width in pixels
_CUBIC_UP_TO = 3.0  # times the size; beyond, cubic interpolation passes over whole pixels


class Placed(NamedTuple):
    """An image as a network sees it.

    Attributes:
        pixels: uint8 `[h, w, 3]`.
        content: (height, width) of the part at the top left that shows the image; what lies outside is padding.
    """

    pixels: np.ndarray
    content: Size


def scaled(image: np.ndarray, size: Size) -> np.ndarray:
    """Resizes an image `[H, W, 3]`.

    Interpolation is cubic, as in training: networks score lower on images that are shrunk in another way. An image of
    more than three times the size is shrunk by area, because fine patterns would leave false ones.
    """
    if image.shape[:2] == size:
        return image
    if max(image.shape[0] / size[0], image.shape[1] / size[1]) > _CUBIC_UP_TO:
        return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    return _as_in_training(image, size)


def _as_in_training(image: np.ndarray, size: Size) -> np.ndarray:
    return augmentation.val_transform({"image": image}, size, normalised=False)["image"]


def padded(image: np.ndarray, size: Size) -> np.ndarray:
    """Repeats the last row and the last column of an image until it has a size."""
    below, right = size[0] - image.shape[0], size[1] - image.shape[1]
    return cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE)


def to_multiples(size: Size, multiple: int) -> Size:
    """Returns the least size of whole multiples that holds a size."""
    return (math.ceil(size[0] / multiple) * multiple, math.ceil(size[1] / multiple) * multiple)


def _fit(image: np.ndarray, size: Size, multiple: int) -> Placed:
    height, width = image.shape[:2]
    factor = min(size[0] / height, size[1] / width)
    content = (max(1, min(size[0], round(height * factor))), max(1, min(size[1], round(width * factor))))
    return Placed(padded(scaled(image, content), size), content)


def _pad(image: np.ndarray, size: Size, multiple: int) -> Placed:
    content = placing.fitted((image.shape[0], image.shape[1]), size)
    return Placed(padded(scaled(image, content), size), content)


def _stretch(image: np.ndarray, size: Size, multiple: int) -> Placed:
    return Placed(_as_in_training(image, size), size)


def _own_size(image: np.ndarray, size: Size, multiple: int) -> Placed:
    own = (image.shape[0], image.shape[1])
    return Placed(padded(image, to_multiples(own, multiple)), own)


# {name: function (image, the network's input size, number of which sides are multiples) -> placed image}
PLACEMENTS: Mapping[str, Callable[[np.ndarray, Size, int], Placed]] = {
    "fit": _fit,
    "pad": _pad,
    "stretch": _stretch,
    "none": _own_size,
}
