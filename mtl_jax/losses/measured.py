"""Arguments of losses that are measured on the labels of the training split, such as weights of classes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Frequencies:
    """Numbers of pixels and images of each class in the labels of a split.

    Attributes:
        pixels: Number of pixels of each class.
        images: Number of images that show each class.
        pixels_of_images: Number of labelled pixels of the images that show each class.
    """

    pixels: tuple[int, ...]
    images: tuple[int, ...]
    pixels_of_images: tuple[int, ...]


Rule = Callable[[Frequencies], tuple[float, ...]]


def inverse_frequency(frequencies: Frequencies) -> tuple[float, ...]:
    """Returns w_c = N / (C n_c), with the n_c pixels of a class, N pixels altogether and C classes."""
    pixels = np.asarray(frequencies.pixels, np.float64)
    return _where_present(pixels.sum() / (len(pixels) * np.maximum(pixels, 1)), frequencies)


def median_frequency(frequencies: Frequencies) -> tuple[float, ...]:
    """Returns w_c = median(f) / f_c, with the share f_c of a class in the pixels of the images that show it.

    The rule is that of arXiv 1411.4734, sec. 6.3.2.
    """
    pixels = np.asarray(frequencies.pixels, np.float64)
    shares = pixels / np.maximum(frequencies.pixels_of_images, 1)
    present = pixels > 0
    median = np.median(shares[present]) if present.any() else 0.0
    return _where_present(median / np.where(present, shares, 1), frequencies)


def enet(frequencies: Frequencies) -> tuple[float, ...]:
    """Returns w_c = 1 / log(1.02 + p_c), with the share p_c of a class in all pixels (arXiv 1606.02147, sec. 5.2)."""
    pixels = np.asarray(frequencies.pixels, np.float64)
    return _where_present(1 / np.log(1.02 + pixels / max(pixels.sum(), 1)), frequencies)


def effective_number(frequencies: Frequencies) -> tuple[float, ...]:
    """Returns w_c in proportion to (1 - b) / (1 - b^n_c) with b = 0.999, scaled to the mean 1 (arXiv 1901.05555).

    The samples n_c are images that show the class: the pixels of one image are not independent samples.
    """
    images = np.asarray(frequencies.images, np.float64)
    weights = np.where(images > 0, 0.001 / (1 - 0.999 ** np.maximum(images, 1)), 0)
    return _where_present(weights * np.count_nonzero(images) / max(weights.sum(), 1e-12), frequencies)


def share_of_negatives(frequencies: Frequencies) -> tuple[float, ...]:
    """Returns the share of the background in the pixels, the weight of positives that balances both."""
    background, foreground = frequencies.pixels
    return (background / max(background + foreground, 1),)


def _where_present(weights: np.ndarray, frequencies: Frequencies) -> tuple[float, ...]:
    """Returns the weights, 0 for classes that do not occur."""
    return tuple(float(weight) if number else 0.0 for weight, number in zip(weights, frequencies.pixels, strict=True))


# {argument of losses: {word that stands for a measured value: its rule}}.
MEASURED: Mapping[str, Mapping[str, Rule]] = {
    "class_weights": {
        "measured": median_frequency,
        "median_frequency": median_frequency,
        "inverse_frequency": inverse_frequency,
        "enet": enet,
        "effective_number": effective_number,
    },
    "positive_weight": {"measured": share_of_negatives},
}
