"""Contact sheets: pictures of many samples with their labels, for a look at the data before training.

A sample is a mapping with `id`, `image` (RGB uint8 `[H, W, 3]`), a label `[H, W, C]` for each labelled task, and
optionally a text `note`. Labels are canonical (`mtl_jax.data.records`) or transformed (`mtl_jax.data.transforms`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtl_jax import tasks as task_table
from mtl_jax.data import augmentation, records, transforms
from mtl_jax.drawing import keys, maps, text
from mtl_jax.drawing.canvas import MARGIN, Cell, grid
from mtl_jax.drawing.maps import Layer
from mtl_jax.labels import Conventions
from mtl_jax.labels.keys import Style, Swatches
from mtl_jax.labels.kind import percent

_OWN = Conventions()  # of data of one's own
NARROWEST = 230  # least width of a column in pixels; captions of narrower columns are illegible
WIDEST = 1.5  # greatest width of a picture, relative to the height of a row; wider pictures are scaled down
KEY_LINES = 24  # greatest height of a key in lines of text


def spread(length: int, count: int, start: int | None = None) -> list[int]:
    """Selects images and returns their positions.

    Args:
        length: Number of images.
        count: Greatest number of selected images.
        start: Position of the first of `count` consecutive images. None means evenly spread images, the first and the
            last of all included.

    Raises:
        ValueError: `count` is less than 1, or there is no image `start`.
    """
    if count < 1:
        raise ValueError(f"count is {count}; the least is 1")
    if start is None:
        return sorted({round(position) for position in np.linspace(0, length - 1, min(count, length))})
    if not 0 <= start < length:
        raise ValueError(f"start is {start}, but the images are 0 to {length - 1}")
    return list(range(start, min(start + count, length)))


def find(source: Any, ids: Sequence[str]) -> list[int]:
    """Returns the positions of the images with these ids, in the order of the ids.

    Args:
        source: A `Split`, or a sequence of records `{"id": ..., ...}`.
        ids: Ids of the images.

    Raises:
        ValueError: Ids are missing. The message lists them, and some of the existing ids.
    """
    found: dict[str, int] = {}
    seen = []
    for position in range(len(source)):
        if len(found) == len(set(ids)):
            break
        name = records.as_text(source[position]["id"])
        seen.append(name)
        if name in ids:
            found.setdefault(name, position)
    if missing := [name for name in ids if name not in found]:
        raise ValueError(
            f"no image has the id {', '.join(map(repr, missing))}; the {len(seen)} ids are {', '.join(seen[:5])}, ..."
        )
    return [found[name] for name in ids]


def augmented(
    sample: Mapping[str, Any],
    rng: np.random.Generator,
    recipe: augmentation.Recipe,
    size: tuple[int, int],
    border: str,
    conventions: Conventions,
) -> dict[str, Any]:
    """Returns a sample after the training transform, with the image in 0..255 and a note of what was drawn.

    Args:
        sample: Canonical sample from `records.decode`.
        rng: Random generator of the augmentation.
        recipe: Augmentation.
        size: Height and width of network inputs.
        border: "zero" or "ignore", see `transforms.scale_and_rotate`.
        conventions: Conventions of the data set.
    """
    drawn = augmentation.draw(recipe, rng)
    seen = augmentation.train_transform(sample, drawn, recipe, size, border, conventions=conventions)
    image = np.round(255 * (seen.pop("image") * transforms.STD + transforms.MEAN))
    return {"id": sample["id"], "image": np.clip(image, 0, 255).astype(np.uint8), "note": recipe.note(drawn), **seen}


def describe(task: str, label: Any, names: Sequence[str] = ()) -> tuple[str, str]:
    """Returns two lines of text on a label: the share of valid pixels, and a summary of the values.

    Args:
        task: Name of the task.
        label: Label `[H, W, C]` of an image. None means that the image has no label.
        names: Names of the classes, () where they are not known.
    """
    if label is None:
        return f"{task}: no label", ""
    kind, label = task_table.get(task).kind, np.asarray(label)
    valid = kind.labelled(label)
    if not valid.any():
        return f"{task}: every pixel ignored", ""
    return f"{task}: {percent(valid.mean())} valid", kind.summarise(label[valid], names)


def sheet(
    samples: Iterable[Mapping[str, Any]],
    tasks: Iterable[str],
    *,
    height: int = 240,
    names: Mapping[str, Sequence[str]] | None = None,
    conventions: Conventions = _OWN,
    style: Style = "overlay",
) -> np.ndarray:
    """Draws a contact sheet with a row for each sample and keys of the colours below.

    A row shows the image, then the label of each task. The colours of a task mean the same in all rows.

    Args:
        samples: Samples, at least one.
        tasks: Names of the tasks, one for each column. The columns are in task order.
        height: Height of the pictures in pixels. Wide pictures are lower.
        names: {task: names of its classes}, for captions and keys.
        conventions: Label conventions of the data set, for the keys.
        style: "overlay" lays classes, saliency and edges over the image, "map" draws the values alone.

    Returns:
        RGB uint8 `[H', W', 3]`.

    Raises:
        ValueError: There is no sample, an image is not RGB uint8, or a task is unknown.
    """
    tasks, names = task_table.ordered(tasks), names or {}
    # One at a time, because all samples at their original size may not fit into memory.
    rows = [_row(sample, tasks, height, names) for sample in samples]
    if not rows:
        raise ValueError("a contact sheet needs at least one sample")
    column = max(NARROWEST, *(row.image.shape[1] for row in rows))
    cells = [[Cell(row.lines, row.image)] for row in rows]
    square = maps.hatching(keys.SWATCH - 2, keys.SWATCH - 2)
    hatched = keys.draw(Swatches(((square, "ignored or unlabelled"),)), column)
    below: list[Cell | None] = [Cell((), hatched, framed=False)]
    for task in tasks:
        layers = [row.layers[task] for row in rows if task in row.layers]
        limits = maps.limits(layers) if layers else (None, None)
        for row, drawn in zip(rows, cells, strict=True):
            drawn.append(Cell(row.descriptions[task], _picture(row.layers.get(task), row.image, style, limits)))
        key = maps.key(layers, style, names.get(task, ()), conventions, limits) if layers else None
        below.append(Cell((), keys.draw(key, column, KEY_LINES), framed=False) if key else None)
    return grid([*cells, below], column)


@dataclass(frozen=True)
class _Row:
    """A sample at the size of the sheet.

    Attributes:
        image: RGB uint8 `[H, W, 3]`.
        lines: Text above the image.
        layers: {task: label}, of the tasks with labelled pixels.
        descriptions: {task: text above the label}.
    """

    image: np.ndarray
    lines: tuple[str, str]
    layers: Mapping[str, Layer]
    descriptions: Mapping[str, tuple[str, str]]


def _row(sample: Mapping[str, Any], tasks: Sequence[str], height: int, names: Mapping[str, Sequence[str]]) -> _Row:
    image = maps.check_image(sample["image"], f"the image of {sample['id']!r}")
    detail = ", ".join(filter(None, (f"{image.shape[0]}x{image.shape[1]}", sample.get("note"))))
    scale = min(height / image.shape[0], WIDEST * height / image.shape[1])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    labels = {task: np.asarray(sample[task]) for task in tasks if sample.get(task) is not None}
    return _Row(
        image=maps.thumbnail(image, height, width),
        lines=(str(sample["id"]), detail),
        layers={
            task: maps.layer(task, label, height, width, is_label=True)
            for task, label in labels.items()
            if task_table.get(task).kind.labelled(label).any()
        },
        descriptions={task: describe(task, labels.get(task), names.get(task, ())) for task in tasks},
    )


def _picture(
    label: Layer | None, image: np.ndarray, style: Style, limits: tuple[float | None, float | None]
) -> np.ndarray:
    """Draws a label, or the word "unlabelled" where the sample has none, RGB uint8 of the size of the image."""
    if label is not None:
        return maps.draw(label, image, style, limits)
    picture = maps.hatching(image.shape[0], image.shape[1])
    word = "unlabelled"
    needed = text.width(word)
    y, x = (picture.shape[0] - text.LINE) // 2, (picture.shape[1] - needed) // 2
    if y >= 0 and x >= MARGIN:
        picture[y : y + text.LINE, x - MARGIN : x + needed + MARGIN] = 255
        text.write(picture[y : y + text.LINE, x : x + needed], word)
    return picture
