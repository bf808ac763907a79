"""Statistics of images for weights that were not trained with ImageNet's.

The library normalises images with ImageNet's mean and standard deviation, in training as in prediction and exported
programs. A backbone whose weights expect other statistics converts the images before its first layer. The conversion is
a part of the network, so nothing else has to know of it. It could not be folded into a convolution that pads with
zeros: a zero there is the mean of the weights' own statistics.
"""

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.images import MEAN, STD
from mtl_jax.nn.per_channel import per_channel

Channels = tuple[float, float, float]
IMAGENET_MEAN: Channels = (float(MEAN[0]), float(MEAN[1]), float(MEAN[2]))
IMAGENET_STD: Channels = (float(STD[0]), float(STD[1]), float(STD[2]))


def renormalised(images: jax.Array, mean: Channels, std: Channels) -> jax.Array:
    """Returns images with other statistics in place of ImageNet's.

    Args:
        images: `[B, H, W, 3]` images, normalised with ImageNet statistics.
        mean: Mean of the pixels (0 to 1, RGB) that the result is normalised with.
        std: Standard deviation of the pixels likewise.
    """
    if (mean, std) == (IMAGENET_MEAN, IMAGENET_STD):
        return images
    factor = np.array(IMAGENET_STD) / np.array(std)
    offset = (np.array(IMAGENET_MEAN) - np.array(mean)) / np.array(std)
    return images * per_channel(jnp.asarray(factor), images) + per_channel(jnp.asarray(offset), images)
