"""Placement of an image in the input of a network, and the part of the prediction that shows the image.

"stretch" resizes the image to the size of the input. "pad" keeps its aspect ratio and its size: it lies in the middle
of the input, and what is left around it is padding. An image that is larger than the input is scaled down so that it
fits.
"""

from typing import Literal, get_args

import numpy as np

Placement = Literal["stretch", "pad"]
PLACEMENTS: tuple[Placement, ...] = get_args(Placement)
Size = tuple[int, int]  # height and width in pixels


def fitted(image: Size, size: Size) -> Size:
    """Returns the size of a whole image in a padded input: its own, or the largest one that fits.

    Args:
        image: Height and width of the image.
        size: Height and width of the input.
    """
    factor = min(1.0, size[0] / image[0], size[1] / image[1])
    height, width = (max(1, round(side * factor)) for side in image)
    return min(height, size[0]), min(width, size[1])


def offsets(content: Size, size: Size) -> tuple[int, int]:
    """Returns the numbers of pixels (above, to the left) of what lies in the middle of an input."""
    return (size[0] - content[0]) // 2, (size[1] - content[1]) // 2


def content(prediction: np.ndarray, image: Size, placement: Placement) -> np.ndarray:
    """Returns the part of a prediction `[h, w]` or `[h, w, C]` that shows the image, without the padding.

    Args:
        prediction: Prediction of the network for its whole input.
        image: Height and width of the original image.
        placement: How the image was placed in the input.
    """
    if placement == "stretch":
        return prediction
    size = (prediction.shape[0], prediction.shape[1])
    height, width = fitted(image, size)
    top, left = offsets((height, width), size)
    return prediction[top : top + height, left : left + width]
