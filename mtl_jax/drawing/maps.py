"""One label or prediction as a picture: painted or laid over its image, hatched where there is no value."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from mtl_jax import tasks as task_table
from mtl_jax.labels import Conventions, LabelKind
from mtl_jax.labels.error_maps import ErrorMap
from mtl_jax.labels.keys import Key, Style
from mtl_jax.labels.sizes import nearest, resize

STRIPES = (105, 165)  # grey levels of the hatching of pixels without a value


@dataclass(frozen=True)
class Layer:
    """A label or a prediction of a task at the size of a drawing.

    Attributes:
        kind: Meaning of the values.
        array: Float32 `[H, W]` or `[H, W, C]`.
        is_label: The array is a label; otherwise it is a prediction.
    """

    kind: LabelKind
    array: np.ndarray
    is_label: bool


def layer(task: str, array: Any, height: int, width: int, *, is_label: bool) -> Layer:
    """Returns one image's label or prediction at the size of a drawing.

    Args:
        task: Name of the task.
        array: A prediction in one of the forms of `mtl_jax.evaluation.predictions`, quantised or not, or a label;
            `[H, W]` or `[H, W, C]`.
        height: Height of the drawing in pixels.
        width: Width of the drawing in pixels.
        is_label: The array is a label: normals are vectors, saliency and edges 0 or 1, and 255 is ignored.

    Raises:
        ValueError: There is no such task, or the array is not that of a single image.
    """
    kind, values = task_table.get(task).kind, _one_image(task, array, is_label)
    return Layer(kind, kind.fit(values, height, width, is_label=is_label), is_label)


def limits(layers: Sequence[Layer]) -> tuple[float | None, float | None]:
    """Returns the values of the first and the last colour of layers of one task, (None, None) where they are fixed."""
    low, high = layers[0].kind.value_range((each.array, each.is_label) for each in layers)
    return (low, low + 1) if low is not None and low == high else (low, high)


def draw(
    shown: Layer, image: np.ndarray, style: Style, limits: tuple[float | None, float | None] = (None, None)
) -> np.ndarray:
    """Draws a layer, RGB uint8 `[H, W, 3]`. Pixels without a value are hatched.

    Args:
        shown: The layer.
        image: The image at the size of the layer, RGB uint8 `[H, W, 3]`.
        style: "overlay" lays the values over the image, "map" draws them alone.
        limits: Values of the first and the last colour, see `limits`.
    """
    kind, array, (low, high) = shown.kind, shown.array, limits
    known = kind.shown(array, is_label=shown.is_label)
    if style == "overlay":
        picture = kind.overlay(image, array, is_label=shown.is_label, low=low, high=high)
    else:
        picture = kind.paint(array, is_label=shown.is_label, low=low, high=high)
    return np.where(known[..., None], picture, hatching(*known.shape))


def complete(shown: Layer) -> bool:
    """Returns True if every pixel of a layer has a value."""
    return bool(shown.kind.shown(shown.array, is_label=shown.is_label).all())


def key(
    layers: Sequence[Layer],
    style: Style,
    names: Sequence[str],
    conventions: Conventions,
    limits: tuple[float | None, float | None],
) -> Key:
    """Returns what the colours of layers of one task mean.

    Args:
        layers: The layers, at least one.
        style: How the layers are drawn.
        names: Names of the classes, () where they are not known.
        conventions: Label conventions of the data set.
        limits: Values of the first and the last colour, see `limits`.
    """
    arrays, (low, high) = [(each.array, each.is_label) for each in layers], limits
    return layers[0].kind.key(arrays, style=style, names=names, conventions=conventions, low=low, high=high)


def errors(task: str, prediction: Any, label: Any) -> ErrorMap | None:
    """Compares one image's prediction with its label; a prediction of another size is resized to the label.

    Returns:
        The errors, or None if the kind of the task's labels has no picture of errors.
    """
    kind, truth = task_table.get(task).kind, _one_image(task, label, is_label=True)
    values = _one_image(task, prediction, is_label=False)
    if values.shape[:2] != truth.shape[:2]:
        values = kind.fit(values, truth.shape[0], truth.shape[1], is_label=False)
    return kind.errors(values, truth)


def draw_errors(error: ErrorMap, height: int, width: int) -> np.ndarray:
    """Draws errors as RGB uint8 `[height, width, 3]`, hatched where there is no label."""
    values = nearest(error.values, height, width)
    known = np.isfinite(values)
    return np.where(known[..., None], error.paint(np.where(known, values, 0)), hatching(height, width))


def colorize(
    task: str, array: Any, *, label: bool = False, low: float | None = None, high: float | None = None
) -> np.ndarray:
    """Draws one image's prediction or label at its own size, as RGB uint8 `[H, W, 3]`, hatched where it has no value.

    Args:
        task: Name of the task.
        array: See `layer`.
        label: The array is a label.
        low: Value of the first colour, for real values such as depth in metres.
        high: Value of the last colour.

    Raises:
        ValueError: There is no such task, or the array is not that of a single image.
    """
    kind, values = task_table.get(task).kind, _one_image(task, array, label)
    known = kind.shown(values, is_label=label)
    picture = kind.paint(values, is_label=label, low=low, high=high)
    return np.where(known[..., None], picture, hatching(*known.shape))


def thumbnail(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns an image `[H, W, 3]` at the size of a drawing, averaged where it shrinks."""
    smaller = height < image.shape[0] or width < image.shape[1]
    return resize(image, height, width, cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def hatching(height: int, width: int) -> np.ndarray:
    """Draws diagonal stripes in two greys, the look of pixels without a value, as RGB uint8 `[height, width, 3]`."""
    y, x = np.indices((height, width))
    grey = np.where((x + y) // 5 % 2, *STRIPES).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def check_image(image: Any, name: str) -> np.ndarray:
    """Returns an image as an array.

    Raises:
        ValueError: It is not RGB uint8 `[H, W, 3]`; the message has the name.
    """
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[-1] != 3 or array.dtype != np.uint8 or 0 in array.shape:
        raise ValueError(f"{name} must be RGB uint8 [H, W, 3]; got {array.dtype} {array.shape}")
    return array


def _one_image(task: str, array: Any, is_label: bool) -> np.ndarray:
    values = np.asarray(array)
    if values.ndim not in (2, 3):
        raise ValueError(f"{task}: expected one image, [H, W] or [H, W, C]; got the shape {values.shape}")
    return values[..., None] if is_label and values.ndim == 2 else values
