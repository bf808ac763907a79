"""Normalisation of images for networks."""

from typing import Any

import numpy as np

MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # ImageNet, RGB
STD = np.array([0.229, 0.224, 0.225], np.float32)


def normalise(image: Any) -> Any:
    """Converts uint8 RGB images `[..., 3]` to float32, normalised with ImageNet statistics.

    Images of other types count as normalised and are returned as they are. NumPy and JAX arrays are supported. The
    steps call this function on the devices, so that images are copied to the devices as bytes.
    """
    if image.dtype != np.uint8:
        return image
    channels = (1,) * (image.ndim - 1) + (3,)
    return (image.astype(np.float32) / np.float32(255) - MEAN.reshape(channels)) / STD.reshape(channels)
