"""How labels and predictions are drawn: the half of a kind of label that makes pictures."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from mtl_jax.labels.conventions import Conventions
from mtl_jax.labels.error_maps import ErrorMap
from mtl_jax.labels.keys import Key, Note, Style
from mtl_jax.labels.sizes import Interpolation, nearest, resize

IGNORE = 255  # label value that no loss and no metric counts


class Drawn(ABC):
    """Values of labels and predictions that can be drawn; the maps have the size of the picture, see `fit`.

    Attributes:
        prediction_interpolation: How a prediction is resized to the size of the original image.
    """

    prediction_interpolation: Interpolation = "linear"

    @abstractmethod
    def meaning(self, conventions: Conventions) -> str:
        """Returns what the numbers of a prediction are, for the description of an exported model."""

    def labelled(self, label: np.ndarray) -> np.ndarray:
        """Returns where a label `[H, W, channels]`, canonical or delivered, has a value, bool `[H, W]`."""
        return np.isfinite(label).all(axis=-1) & (label != IGNORE).any(axis=-1)

    def fit(self, array: np.ndarray, height: int, width: int, *, is_label: bool) -> np.ndarray:
        """Returns a label or a prediction at the size of a drawing, without values that it does not hold.

        Args:
            array: Label `[H, W, C]`, or prediction `[H, W]` or `[H, W, C]`.
            height: Height of the drawing in pixels.
            width: Width of the drawing in pixels.
            is_label: The array is a label; otherwise it is a prediction.

        Returns:
            Float32 `[height, width]` or `[height, width, C]`. Numbers of predictions are averaged; labels and class
            ids are not, because a mean of two labels is none of them.
        """
        if is_label or self.prediction_interpolation == "nearest":
            return nearest(array, height, width).astype(np.float32)
        smaller = height < array.shape[0] or width < array.shape[1]
        interpolation = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        return resize(array.astype(np.float32), height, width, interpolation)

    def shown(self, array: np.ndarray, *, is_label: bool) -> np.ndarray:
        """Returns where a label `[H, W, C]` or a prediction `[H, W]` or `[H, W, C]` has a value, bool `[H, W]`."""
        if is_label:
            return self.labelled(array)
        known = np.isfinite(array)
        return known.all(axis=-1) if array.ndim == 3 else known

    @abstractmethod
    def paint(
        self, array: np.ndarray, *, is_label: bool, low: float | None = None, high: float | None = None
    ) -> np.ndarray:
        """Draws one image's prediction or label, `[H, W]` or `[H, W, C]`, as RGB uint8 `[H, W, 3]`.

        The renderer draws over pixels that are not `shown`, so their colour does not matter.

        Args:
            array: The values.
            is_label: The array is a label; otherwise it is a prediction.
            low: Value of the first colour, where values have a range.
            high: Value of the last colour, where values have a range.
        """

    def overlay(
        self,
        image: np.ndarray,
        array: np.ndarray,
        *,
        is_label: bool,
        low: float | None = None,
        high: float | None = None,
    ) -> np.ndarray:
        """Draws values over their image, RGB uint8 `[H, W, 3]`; the arguments are those of `paint`.

        Values that fill the picture hide the image.
        """
        return self.paint(array, is_label=is_label, low=low, high=high)

    def value_range(self, arrays: Iterable[tuple[np.ndarray, bool]]) -> tuple[float | None, float | None]:
        """Returns the common range of several maps, (None, None) where values have a fixed one.

        Args:
            arrays: Pairs of a map and whether it is a label.
        """
        return None, None

    def key(
        self,
        arrays: Sequence[tuple[np.ndarray, bool]],
        *,
        style: Style,
        names: Sequence[str],
        conventions: Conventions,
        low: float | None,
        high: float | None,
    ) -> Key:
        """Returns what the colours of a drawing mean.

        Args:
            arrays: Pairs of a drawn map and whether it is a label.
            style: "overlay" or "map".
            names: Names of the classes, () where they are not known.
            conventions: Label conventions of the data set.
            low: Value of the first colour, where values have a range.
            high: Value of the last colour, where values have a range.
        """
        return Note(self.meaning(conventions))

    def errors(self, prediction: np.ndarray, label: np.ndarray) -> ErrorMap | None:
        """Compares a prediction with its label of the same size, `[H, W]` or `[H, W, C]`.

        Returns:
            The errors, or None if this kind of label has no picture of errors.
        """
        return None

    @abstractmethod
    def summarise(self, values: np.ndarray, names: Sequence[str] = ()) -> str:
        """Returns one line about the labelled values `[N, channels]` of an image, for a caption.

        Args:
            values: The values.
            names: Names of the classes, () where they are not known.
        """
