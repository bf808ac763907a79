"""Prediction of a large image in windows that overlap, whose values are blended."""

import itertools
import math
from collections.abc import Mapping

import numpy as np

from mtl_jax.inference.network import Network, Values
from mtl_jax.inference.options import PredictOptions
from mtl_jax.inference.placement import Size, padded, to_multiples
from mtl_jax.labels import LabelKind


def starts(length: int, window: int, overlap: float) -> list[int]:
    """Returns the first pixels of windows that cover a side evenly, the last one up to its end.

    Args:
        length: Pixels of the side, at least those of a window.
        window: Pixels of a window.
        overlap: Least part of a window that it shares with the next one.
    """
    steps = math.ceil((length - window) / max(1.0, window * (1 - overlap)))
    return [round(i * (length - window) / steps) for i in range(steps)] + [length - window]


def weights(size: Size, overlap: float) -> np.ndarray:
    """Returns the weight of every pixel of a window, float32 `[h, w]`.

    Weights fall linearly to nearly 0 over the part at the border that windows share, and are 1 inside.
    """

    def along(length: int) -> np.ndarray:
        distance = np.minimum(np.arange(length), np.arange(length)[::-1]) + 0.5
        return np.minimum(1, distance / max(1.0, overlap * length))

    height, width = size
    return np.outer(along(height), along(width)).astype(np.float32)


def predict(
    image: np.ndarray,
    network: Network,
    kinds: Mapping[str, LabelKind],
    options: PredictOptions,
    *,
    confidence: bool = False,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns {task: map at the size of the image}, see `LabelKind.decide`, and {task: probability of its values}.

    Rows of windows follow each other from top to bottom. What the next row no longer reaches is decided, so the values
    of all classes are held for the height of one window.

    Args:
        image: uint8 `[H, W, 3]`.
        network: The network.
        kinds: {task: kind of its labels}.
        options: Size and overlap of the windows, and the views of each that are averaged.
        confidence: True to compute the probabilities, see `LabelKind.confidence`; otherwise there are none.

    Raises:
        ValueError: The network takes no images of the size of the windows.
    """
    height, width = image.shape[:2]
    size: Size = network.size if tuple(options.window_size) == (0, 0) else options.window_size
    window = size if network.fixed_size else to_multiples(size, network.multiple)
    whole = padded(image, (max(height, window[0]), max(width, window[1])))
    rows = starts(whole.shape[0], window[0], options.overlap)
    columns = starts(whole.shape[1], window[1], options.overlap)
    weight = weights(window, options.overlap)
    band = _Band(window[0], whole.shape[1])
    finished: dict[str, list[np.ndarray]] = {task: [] for task in kinds}
    probable: dict[str, list[np.ndarray]] = {}
    for top, following in itertools.zip_longest(rows, rows[1:]):
        for first in range(0, len(columns), options.batch_size):
            some = columns[first : first + options.batch_size]
            crops = np.stack([whole[top : top + window[0], left : left + window[1]] for left in some])
            band.add(network.values(crops, options), some, weight)
        done = window[0] if following is None else following - top
        for task, values in band.take(done).items():
            finished[task].append(kinds[task].decide(values))
            if confidence and (probability := kinds[task].confidence(values)) is not None:
                probable.setdefault(task, []).append(probability)
    decided, sure = (
        {task: np.concatenate(parts)[:height, :width] for task, parts in each.items()} for each in (finished, probable)
    )
    return decided, sure


class _Band:
    """Weighted sums of the values of the windows that lie at one height.

    Args:
        height: Height of a window.
        width: Width of the image.
    """

    def __init__(self, height: int, width: int):
        self._weight = np.zeros((height, width, 1), np.float32)
        self._sums: Values = {}

    def add(self, values: Values, lefts: list[int], weight: np.ndarray) -> None:
        """Adds the values of windows `[B, h, w, C]` that begin at the columns `lefts`."""
        for task, windows in values.items():
            if task not in self._sums:
                self._sums[task] = np.zeros((*self._weight.shape[:2], windows.shape[-1]), np.float32)
            for left, one in zip(lefts, windows, strict=True):
                self._sums[task][:, left : left + weight.shape[1]] += one * weight[..., None]
        for left in lefts:
            self._weight[:, left : left + weight.shape[1]] += weight[..., None]

    def take(self, rows: int) -> Values:
        """Returns the mean values of the uppermost rows, and moves the others up."""
        taken = {task: total[:rows] / self._weight[:rows] for task, total in self._sums.items()}
        for total in (self._weight, *self._sums.values()):
            total[:-rows] = total[rows:]
            total[-rows:] = 0
        return taken
