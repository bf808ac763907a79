"""Panels: an image, its predictions and its labels side by side."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl_jax import tasks as task_table
from mtl_jax.drawing.canvas import Cell, grid
from mtl_jax.evaluation.predictions import resize_prediction


def colorize(
    task: str, array: Any, *, label: bool = False, low: float | None = None, high: float | None = None
) -> np.ndarray:
    """Draws one image's prediction or label as RGB uint8 `[H, W, 3]`, as the kind of the task's labels has it.

    Args:
        task: Name of the task.
        array: A prediction in one of the forms of `mtl_jax.evaluation.predictions`, quantised or not, or a label;
            `[H, W]` or `[H, W, C]`.
        label: The array is a label: normals are vectors, saliency and edges 0 or 1, and 255 is ignored.
        low: Value of the darkest colour, for real values such as depth in metres.
        high: Value of the brightest colour.

    Raises:
        ValueError: There is no such task, or the array is not that of a single image.
    """
    row = task_table.get(task)
    array = np.asarray(array)
    if array.ndim not in (2, 3):
        raise ValueError(f"{row.name}: expected one image, [H, W] or [H, W, C]; got the shape {array.shape}")
    return row.kind.paint(array, is_label=label, low=low, high=high)


def panel(image: Any, predictions: Mapping[str, Any], labels: Mapping[str, Any] | None = None) -> np.ndarray:
    """Draws an image, its predictions and its labels side by side, RGB uint8 `[H', W', 3]`.

    The image stands at the left, a column for each task follows in the order of the task table; the predictions are
    in the first row, the labels, where given, in the second. Predictions of another size are resized to the image's;
    the prediction and the label of a task share one range of colours.

    Args:
        image: RGB uint8 `[H, W, 3]`.
        predictions: {task: one image's prediction}.
        labels: {task: one image's label}; where a label is missing or None its place stays empty, and labels of tasks
            without a prediction are left out.

    Raises:
        ValueError: The image is not RGB uint8, or there is no such task.
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
        raise ValueError(f"the image must be RGB uint8 [H, W, 3]; got {image.dtype} {image.shape}")
    labels = {
        task: np.asarray(value) for task, value in (labels or {}).items() if task in predictions and value is not None
    }
    above: list[Cell | None] = [Cell(("image",), image)]
    below: list[Cell | None] = [None]
    for task in task_table.ordered(predictions):
        kind, prediction, label = task_table.get(task).kind, np.asarray(predictions[task]), labels.get(task)
        shown = [(prediction, False)] if label is None else [(prediction, False), (label, True)]
        low, high = kind.value_range(shown)
        cells = [
            _cell(task, kind.paint(array, is_label=is_label, low=low, high=high), is_label, image)
            for array, is_label in shown
        ]
        above.append(cells[0])
        below.append(cells[1] if label is not None else None)
    return grid([above, below] if labels else [above], framed=True)


def _cell(task: str, picture: np.ndarray, is_label: bool, image: np.ndarray) -> Cell:
    if picture.shape[:2] != image.shape[:2]:
        picture = resize_prediction(task, picture, image.shape[:2])
    return Cell((f"{task}: {'ground truth' if is_label else 'prediction'}",), picture)
