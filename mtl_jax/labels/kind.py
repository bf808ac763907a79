"""The interface of the kinds of labels, and functions that they share."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import cv2
import jax
import numpy as np

from mtl_jax.codecs import map_files, pictures
from mtl_jax.labels.conventions import Conventions
from mtl_jax.labels.drawn import IGNORE, Drawn
from mtl_jax.labels.label_files import LabelFiles
from mtl_jax.labels.readers import Reader, Size
from mtl_jax.labels.sizes import Interpolation, resize

# How a data set stores a label: bytes [H, W, 1] as PNG, three bytes a pixel [H, W, 3] as PNG, or float32 [H, W, C].
StoredForm = Literal["png", "colours", "float32"]
_RGB_HEADER = 2  # colour type in the header of a PNG with three channels


class LabelKind(Drawn):
    """The meaning of the values of a task's labels and predictions, and everything that follows from it.

    A label passes through three forms. *Stored*: what a record holds, bytes or numbers. *Canonical*: an array
    `[H, W, channels]` that `decode` makes and the transforms move. *Delivered*: `[H, W, channels]` in `dtype`, with 255
    where there is no label, which losses and metrics read.

    A prediction is what `activate` makes of logits: `[B, H, W]` of class maps, else `[B, H, W, channels]`. Where a
    prediction is resized, averaged or blended, that happens before it is decided: `soften` makes values of logits, and
    `decide` a map of values. A map is in the unit of labels; `as_prediction` brings it into the form of predictions.

    Attributes:
        channels: Last dimension of a label.
        dtype: Type of a delivered label.
        void: Value of a canonical label where there is none.
        label_interpolation: How the training transforms resample a label.
        fit_interpolation: How a stored label of another size is brought to the size of its image.
        prediction_interpolation: How a prediction is resized to the size of the original image.
        prediction_range: Least and greatest value of a prediction; None = any value.
        unit: Unit of the values, "m" for metres; "" = they have none.
        has_classes: The values are ids of classes, whose number the data set says.
        distance: The values are distances from the camera, which a recipe may divide by the scale of the image.
        suffix: Suffix of the files that hold predictions.
        folder_options: Names of the options that describe such labels in a folder of one's own.
        constant_from: Split from which the best constant prediction is taken.
    """

    channels: int = 1
    dtype: str = "float32"
    void: float = IGNORE
    label_interpolation: Interpolation = "nearest"
    fit_interpolation: Interpolation = "nearest"
    prediction_range: tuple[int, int] | None = None
    unit: str = ""
    distance: bool = False
    has_classes: bool = False
    suffix: str = ".png"
    folder_options: tuple[str, ...] = ()
    constant_from: Literal["train", "val"] = "train"

    @abstractmethod
    def num_logits(self, num_classes: int) -> int:
        """Returns the number of logit channels.

        Args:
            num_classes: Number of classes that the data set has, 0 where it does not say.
        """

    # Labels

    @abstractmethod
    def decode(self, stored: np.ndarray, conventions: Conventions) -> np.ndarray:
        """Turns a stored label `[H, W, channels]` into a canonical one of the same shape.

        Raises:
            ValueError: The stored type cannot hold such values.
        """

    def flip(self, label: np.ndarray, conventions: Conventions) -> np.ndarray:
        """Returns the values of a label that has just been mirrored left to right, `[H, W, channels]`."""
        return label

    def rotate(self, label: np.ndarray, angle: float, conventions: Conventions) -> np.ndarray:
        """Returns the values of a label whose image is about to be rotated by `angle` degrees, counter-clockwise."""
        return label

    def resampled(self, label: np.ndarray) -> np.ndarray:
        """Repairs what interpolation has changed, such as the length of vectors; `[H, W, channels]`."""
        return label

    def redrawn(self, label: np.ndarray, resized: np.ndarray) -> np.ndarray:
        """Returns a label at another size, without harm to what is finer than interpolation can keep.

        Args:
            label: The label before, `[H, W, channels]`.
            resized: The label at the new size by interpolation, `[h, w, channels]`, which most kinds return.
        """
        return resized

    def mark_ignored(self, label: np.ndarray) -> np.ndarray:
        """Writes 255 where a canonical label `[H, W, channels]` has none."""
        return label

    @abstractmethod
    def draw_random(self, rng: np.random.Generator, shape: tuple[int, ...], num_classes: int) -> np.ndarray:
        """Draws delivered labels `[*shape, channels]`, for benchmarks and tests.

        Args:
            rng: Source of the values.
            shape: `(B, H, W)`.
            num_classes: Number of classes.
        """

    # Predictions

    @abstractmethod
    def activate(self, logits: jax.Array) -> jax.Array:
        """Turns logits `[B, H, W, C]` of float32 or more into predictions; works inside `jax.jit`."""

    def soften(self, logits: jax.Array) -> jax.Array:
        """Turns logits `[B, H, W, C]` into values that may be resized and averaged; works inside `jax.jit`.

        The values are in the unit of labels, and `flip` mirrors them: probabilities of the classes, the probability of
        the foreground, vectors, real numbers. A kind whose predictions are in another unit than its labels defines it.
        """
        return self.activate(logits)

    def decide(self, values: np.ndarray) -> np.ndarray:
        """Returns the map that softened values `[H, W, C]` of one image stand for, `[H, W]` or `[H, W, channels]`.

        The map is in the unit of labels: class ids, probabilities from 0 to 1, unit vectors, real numbers.
        """
        return values

    def decide_at(self, values: np.ndarray, height: int, width: int) -> np.ndarray:
        """Resizes softened values `[h, w, C]` linearly, and returns the map that they stand for at the new size."""
        return self.decide(resize(values, height, width, cv2.INTER_LINEAR))

    def confidence(self, values: np.ndarray) -> np.ndarray | None:
        """Returns the probability of what `decide` makes of softened values `[H, W, C]`, float32 `[H, W]`.

        None where the values are no probabilities.
        """
        return None

    def confidence_at(self, values: np.ndarray, height: int, width: int) -> np.ndarray | None:
        """Returns the probability of what `decide_at` makes of softened values `[h, w, C]`, see `confidence`."""
        return self.confidence(resize(values, height, width, cv2.INTER_LINEAR))

    def as_label(self, decided: np.ndarray, conventions: Conventions) -> np.ndarray:
        """Returns a map that `decide` made as a canonical label `[H, W, channels]`, for the training of another model.

        Pixels whose value cannot be that of a label have none.
        """
        return decided.reshape(*decided.shape[:2], self.channels)

    def as_prediction(self, decided: np.ndarray) -> np.ndarray:
        """Returns a map that `decide` made in the form of predictions, as `activate` returns them."""
        return decided

    def map_meaning(self, conventions: Conventions) -> str:
        """Returns what the values of a map that `decide` made are."""
        return "value in the unit of the labels"

    def map_files(self, decided: np.ndarray, num_classes: int) -> dict[str, bytes]:
        """Returns {suffix: content} of the files that hold a map for people and other tools.

        Args:
            decided: Map that `decide` made, `[H, W]` or `[H, W, channels]`.
            num_classes: Number of logit channels of the task, which is the number of classes of class maps.
        """
        return {".npy": map_files.npy(decided.astype(np.float32))}

    def describe_map_files(self, conventions: Conventions) -> dict[str, str]:
        """Returns {suffix: what the values in such a file mean} for the files of `map_files`."""
        return {".npy": "NumPy array of float32, in the unit of the labels"}

    @abstractmethod
    def best_constant(self, labels: Iterable[np.ndarray]) -> np.ndarray:
        """Returns the best prediction that is the same in every pixel, as a prediction of one pixel.

        Args:
            labels: Canonical labels `[H, W, channels]` of a split.
        """

    def count_classes(self, label: np.ndarray, num_classes: int) -> np.ndarray:
        """Returns how many pixels each class has in a delivered label `[H, W, channels]`, int64 `[C]`.

        Args:
            label: The label, 255 where there is none.
            num_classes: Number of logit channels of the task.

        Raises:
            NotImplementedError: Such labels have no classes.
        """
        raise NotImplementedError(f"labels of {type(self).__name__} have no classes, whose pixels could be counted")

    def quantise(self, prediction: np.ndarray) -> np.ndarray:
        """Returns a prediction as files hold it: truncated to uint8, not rounded."""
        return np.clip(prediction, 0, 255).astype(np.uint8)

    def encode_prediction(self, quantised: np.ndarray, task: str) -> bytes:
        """Returns the content of a file with a quantised prediction `[H, W]` or `[H, W, C]`, vectors as RGB.

        Args:
            task: Name of the task.
        """
        if quantised.ndim == 3 and quantised.shape[-1] == 1:
            quantised = quantised[..., 0]
        rgb_last = quantised[..., ::-1] if quantised.ndim == 3 else quantised  # OpenCV writes BGR
        return cv2.imencode(".png", rgb_last)[1].tobytes()

    def decode_prediction(self, data: bytes, task: str) -> np.ndarray:
        """Reads a prediction `[H, W, C]`, or a class map `[H, W]`, from the content of a file of any tool.

        Args:
            task: Name of the task.

        Raises:
            ValueError: The file is damaged or holds no such prediction.
        """
        prediction = pictures.decode(data, self.channels)
        check_png(data, self.channels)
        if pictures.has_palette(data):
            raise ValueError("a PNG with a palette, expected greys")
        return prediction

    def check_prediction(self, prediction: np.ndarray, num_classes: int | None) -> None:
        """Checks the values of a prediction that comes from a file.

        Args:
            num_classes: Number of classes, where it is known.

        Raises:
            ValueError: A value is not finite or out of range.
        """
        if bad := int((~np.isfinite(prediction)).sum()):
            raise ValueError(f"{bad} values are NaN or infinite")

    def describe_prediction(
        self, num_classes: int, class_names: Sequence[str] | None, conventions: Conventions
    ) -> dict[str, Any]:
        """Returns what a user of an exported model has to know of this output, ready for JSON.

        Args:
            num_classes: Number of logit channels.
            class_names: Names of the classes, where they are known.
            conventions: Label conventions of the data.

        Returns:
            "meaning" of the numbers, their "unit" ("" = they have none), their "range" (None = any value) and the
            interpolation with which they are resized ("resize"). Class ids have further entries.
        """
        return {
            "meaning": self.meaning(conventions),
            "unit": self.unit,
            "range": None if self.prediction_range is None else list(self.prediction_range),
            "resize": self.prediction_interpolation,
        }

    # A folder of one's own

    @abstractmethod
    def reader(self, files: LabelFiles) -> Reader:
        """Returns the function that reads such labels from the files that `files` describes."""

    def written_files(self, class_names: Sequence[str], conventions: Conventions) -> LabelFiles:
        """Returns the description of the files that `encode_label` makes, which `reader` takes.

        Args:
            class_names: Names of the classes, of labels that are class ids.
            conventions: Label conventions of the data that the labels are from.
        """
        return LabelFiles(suffix=".npy", unit=self.default_step())

    def encode_label(self, label: np.ndarray) -> bytes:
        """Returns the content of a file with a canonical label `[H, W, channels]`, NaN where there is no label."""
        values = label.astype(np.float32)
        values[~self.labelled(label)] = np.nan
        return map_files.npy(values)

    def stored_form(self, files: LabelFiles) -> StoredForm:
        """Returns how labels from these files are stored in a data set."""
        return "png"

    def unlabelled(self, files: LabelFiles, size: Size) -> Any:
        """Returns what is stored for an image of this size (height, width) that has no label."""
        return pictures.encode_png(np.full((*size, 1), IGNORE, np.uint8))

    def derived(self, source: np.ndarray) -> Any:
        """Returns the stored label that follows from the label of another task, for the folder option `from`.

        Args:
            source: Canonical label of the other task, class ids `[H, W, 1]`.

        Raises:
            NotImplementedError: Such labels cannot be derived; the kind does not list the option `from`.
        """
        raise NotImplementedError(f"labels of {type(self).__name__} cannot be derived from those of another task")

    def default_step(self) -> float:
        """Returns the value of one step in files with whole numbers, where a folder does not say it."""
        return 1.0


def check_png(data: bytes, channels: int) -> None:
    """Checks that a file is a PNG of 8 bits with so many channels.

    OpenCV makes colours of greys and 8 bits of 16, so the decoded array does not tell.

    Raises:
        ValueError: The file is another one.
    """
    bits, colour_type = data[24], data[25]
    if not data.startswith(pictures.PNG) or bits > 8 or (channels == 3 and colour_type != _RGB_HEADER):
        raise ValueError(f"expected a PNG of 8 bits with {channels} channel(s)")


def ignore_zeros(label: np.ndarray) -> np.ndarray:
    """Writes 255 into all channels of the pixels of a label `[H, W, C]` whose channels are all zero."""
    zero = cv2.inRange(label, (0,) * 4, (0,) * 4)
    return cv2.copyTo(label, cv2.bitwise_not(zero), np.full_like(label, IGNORE)).reshape(label.shape)


def plane(array: np.ndarray) -> np.ndarray:
    """Returns the first channel of `[H, W, C]`; `[H, W]` stays as it is."""
    return array[..., 0] if array.ndim == 3 else array


def mean_value(kind: LabelKind, labels: Iterable[np.ndarray]) -> np.ndarray:
    """Computes the mean of the labelled values of many labels in float64, `[channels]`."""
    total, pixels = np.zeros(kind.channels), 0
    for label in labels:
        values = label[kind.labelled(label)]
        total, pixels = total + values.sum(0, dtype=np.float64), pixels + len(values)
    return total / max(pixels, 1)


def percent(share: float) -> str:
    """Returns a share in whole percent, but neither 0 nor 100 unless the share is exactly that."""
    value = 100 * float(share)
    if 0 < value < 1 or 99 < value < 100:
        return f"{min(max(value, 0.1), 99.9):.1f} %"
    return f"{value:.0f} %"
