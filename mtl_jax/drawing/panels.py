"""Predictions and labels as pictures, with NumPy and OpenCV only."""

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np

from mtl_jax import tasks as task_table
from mtl_jax.evaluation.predictions import resize_prediction
from mtl_jax.tasks import IGNORE

MARGIN, CAPTION = 8, 22  # pixels around the cells of a panel, and above each for its caption
_FONT, _FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.5
UNLABELLED = 128  # grey of ignored pixels in maps whose labels are drawn black and white


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


# {family of data sets: {task: names}}; a folder of one's own names its classes itself.
CLASS_NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "nyud": {
        "semseg": _names(
            "wall, floor, cabinet, bed, chair, sofa, table, door, window, bookshelf, picture, counter, blinds, desk, "
            "shelves, curtain, dresser, pillow, mirror, floor mat, clothes, ceiling, books, refrigerator, television, "
            "paper, towel, shower curtain, box, whiteboard, person, night stand, toilet, sink, lamp, bathtub, bag, "
            "other structure, other furniture, other prop"
        )
    },
    "pascal": {
        "semseg": _names(
            "background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, dining table, dog, horse, "
            "motorbike, person, potted plant, sheep, sofa, train, tv monitor"
        ),
        "human_parts": _names("background, head, torso, upper arm, lower arm, upper leg, lower leg"),
    },
}


def class_colors(n: int = 256) -> np.ndarray:
    """The colour map of PASCAL VOC, RGB uint8 `[n, 3]`: the bits of the class number dealt to the channels in turn.

    Class 0 is black and 255, the ignored label, white.
    """
    colors = np.zeros((n, 3), np.uint8)
    classes = np.arange(n)
    for place in range(8):
        for channel in range(3):
            bit = (classes >> (3 * place + channel)) & 1
            colors[:, channel] |= (bit << (7 - place)).astype(np.uint8)
    colors[IGNORE:] = 255
    return colors


def part_colors() -> np.ndarray:
    """RGB uint8 `[256, 3]` for the human parts of `CLASS_NAMES`; ignored white."""
    colors = np.full((256, 3), 255, np.uint8)
    colors[:7] = [
        (0, 0, 0),
        (220, 60, 60),
        (70, 110, 220),
        (240, 170, 50),
        (250, 225, 110),
        (40, 150, 90),
        (140, 210, 130),
    ]
    return colors


def _classes(array: np.ndarray, label: bool, low: float | None, high: float | None) -> np.ndarray:
    return class_colors()[_plane(array).astype(np.uint8)]


def _parts(array: np.ndarray, label: bool, low: float | None, high: float | None) -> np.ndarray:
    return part_colors()[_plane(array).astype(np.uint8)]


def _grey(array: np.ndarray, label: bool, low: float | None, high: float | None) -> np.ndarray:
    """Predictions are in 0..255; labels are drawn white where at least 0.5, and grey where they are 255."""
    values = _plane(array)
    if label:
        grey = np.where(values == IGNORE, UNLABELLED, np.where(values >= 0.5, 255, 0))
    else:
        grey = np.clip(values, 0, 255)
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)


def _normals(array: np.ndarray, label: bool, low: float | None, high: float | None) -> np.ndarray:
    """(n + 1) / 2 as RGB; pixels without a label black."""
    if not label:
        return np.clip(array, 0, 255).astype(np.uint8)
    known = (array != IGNORE).any(axis=-1, keepdims=True) & (array != 0).any(axis=-1, keepdims=True)
    norm = np.maximum(np.sqrt((array.astype(np.float64) ** 2).sum(axis=-1, keepdims=True)), 1e-12)
    return np.where(known, 255 * (array / norm + 1) / 2, 0).astype(np.uint8)


def _depth(array: np.ndarray, label: bool, low: float | None, high: float | None) -> np.ndarray:
    """Viridis from `low` (dark) to `high` (bright), by default the array's own range; pixels without a label black."""
    values = _plane(array).astype(np.float64)
    known = np.isfinite(values) & _labelled(values) if label else np.isfinite(values)
    own_low, own_high = _depth_range([values[known]])
    low, high = own_low if low is None else low, own_high if high is None else high
    scaled = np.clip((np.where(known, values, low) - low) / max(high - low, 1e-9), 0, 1)
    colors = cv2.applyColorMap(np.round(255 * scaled).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]
    return np.where(known[..., None], colors, 0).astype(np.uint8)


Painter = Callable[[np.ndarray, bool, float | None, float | None], np.ndarray]

PAINTERS: dict[str, Painter] = {
    "semseg": _classes,
    "human_parts": _parts,
    "sal": _grey,
    "normals": _normals,
    "edge": _grey,
    "depth": _depth,
}


def colorize(
    task: str, array: Any, *, label: bool = False, low: float | None = None, high: float | None = None
) -> np.ndarray:
    """One image's prediction or label as RGB uint8 `[H, W, 3]`.

    Args:
        task: its name.
        array: a prediction in the forms of `mtl_jax.evaluation.predictions` (not only quantised ones), or a label,
            `[H, W]` or `[H, W, C]`.
        label: the array is a label: normals are vectors, saliency and edges 0 or 1, 255 is ignored.
        low: depth in metres drawn as the darkest colour.
        high: depth in metres drawn as the brightest colour.

    Raises:
        ValueError: no such task, or not the array of a single image.
    """
    name = task_table.get(task).name
    if name not in PAINTERS:
        raise ValueError(f"no way to draw task {name!r}; mtl_jax.drawing.panels.PAINTERS has {', '.join(PAINTERS)}")
    array = np.asarray(array)
    if array.ndim not in (2, 3):
        raise ValueError(f"{name}: expected one image, [H, W] or [H, W, C]; got the shape {array.shape}")
    return PAINTERS[name](array, label, low, high)


def labelled_pixels(task: str, label: Any) -> np.ndarray:
    """Where there is a label, bool `[H, W]`; of depth and normals also zeros are none.

    Args:
        task: its name.
        label: one image's, `[H, W, C]`.
    """
    label = np.asarray(label)
    valid = np.isfinite(label).all(axis=-1) & (label != IGNORE).any(axis=-1)
    if task_table.get(task).activation in ("identity", "unit_vector"):
        valid &= (label != 0).any(axis=-1)
    return valid


def panel(image: Any, predictions: Mapping[str, Any], labels: Mapping[str, Any] | None = None) -> np.ndarray:
    """Image, predictions and ground truth side by side, RGB uint8.

    The image stands at the left, a column for each task follows in the order of the task table; the predictions are
    in the first row, the labels, where given, in the second. Predictions of another size are resized to the image's;
    prediction and label of depth share one range.

    Args:
        image: RGB uint8 `[H, W, 3]`.
        predictions: {task: one image's prediction}.
        labels: {task: one image's label}; where one is missing or None its place stays empty, those of other tasks are
            left out.
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
        raise ValueError(f"the image must be RGB uint8 [H, W, 3]; got {image.dtype} {image.shape}")
    labels = {
        task: np.asarray(value) for task, value in (labels or {}).items() if task in predictions and value is not None
    }
    columns: list[list[tuple[str, np.ndarray] | None]] = [[("image", image), None]]
    for task in task_table.ordered(predictions):
        shown = {"prediction": np.asarray(predictions[task])}
        if task in labels:
            shown["ground truth"] = labels[task]
        low, high = _shared_range(task, shown)
        column: list[tuple[str, np.ndarray] | None] = []
        for what, array in shown.items():
            picture = colorize(task, array, label=what == "ground truth", low=low, high=high)
            if picture.shape[:2] != image.shape[:2]:
                picture = resize_prediction(task, picture, image.shape[:2])
            column.append((f"{task}: {what}", picture))
        columns.append([*column, None][:2])
    rows = 2 if labels else 1
    return _grid([column[:rows] for column in columns], image.shape[0], image.shape[1])


def _grid(columns: list[list[tuple[str, np.ndarray] | None]], height: int, width: int) -> np.ndarray:
    step_y, step_x = CAPTION + height + MARGIN, width + MARGIN
    canvas = np.full((MARGIN + step_y * len(columns[0]), MARGIN + step_x * len(columns), 3), 255, np.uint8)
    for i, column in enumerate(columns):
        for j, cell in enumerate(column):
            if cell is None:
                continue
            y, x = MARGIN + j * step_y, MARGIN + i * step_x
            caption(canvas[y : y + CAPTION, x : x + width], cell[0])
            frame = (slice(y + CAPTION - 1, y + CAPTION + height + 1), slice(x - 1, x + width + 1))
            canvas[frame] = 200  # a grey line, for the white of ignored pixels
            canvas[y + CAPTION : y + CAPTION + height, x : x + width] = cell[1]
    return canvas


def text_width(text: str) -> int:
    """Pixels a text takes at the size of captions."""
    return int(cv2.getTextSize(text, _FONT, _FONT_SCALE, 1)[0][0])


def caption(strip: np.ndarray, text: str) -> None:
    """Writes a text on white into a strip uint8 `[CAPTION, W, 3]`, smaller if it would not fit."""
    scale = _FONT_SCALE * min(1.0, strip.shape[1] / max(text_width(text), 1))
    drawn = np.full(strip.shape, 255, np.uint8)  # OpenCV needs contiguous memory
    cv2.putText(drawn, text, (0, CAPTION - 7), _FONT, scale, (40, 40, 40), 1, cv2.LINE_AA)
    strip[:] = drawn


def _plane(array: np.ndarray) -> np.ndarray:
    return array[..., 0] if array.ndim == 3 else array


def _labelled(values: np.ndarray) -> np.ndarray:
    return (values != IGNORE) & (values != 0)


def _depth_range(values: list[np.ndarray]) -> tuple[float, float]:
    joined = np.concatenate([v.reshape(-1) for v in values])
    return (float(joined.min()), float(joined.max())) if joined.size else (0.0, 1.0)


def _shared_range(task: str, shown: Mapping[str, np.ndarray]) -> tuple[float | None, float | None]:
    """One range for everything shown of a task of plain values; no range for the other tasks."""
    if task_table.get(task).activation != "identity":
        return None, None
    kept = []
    for what, array in shown.items():
        known = np.isfinite(array) & (_labelled(array) if what == "ground truth" else True)
        kept.append(array[known])
    return _depth_range(kept)
