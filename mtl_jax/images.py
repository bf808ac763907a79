"""Images as networks take them."""

from typing import Any

import numpy as np

MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # ImageNet, RGB
STD = np.array([0.229, 0.224, 0.225], np.float32)


def normalise(image: Any) -> Any:
    """uint8 RGB `[..., 3]` -> float32 with ImageNet statistics; what is not uint8 counts as normalised already.

    Takes NumPy and jax arrays. The steps call it on the devices, so that images travel as bytes.
    """
    if image.dtype != np.uint8:
        return image
    channels = (1,) * (image.ndim - 1) + (3,)
    return (image.astype(np.float32) / np.float32(255) - MEAN.reshape(channels)) / STD.reshape(channels)
