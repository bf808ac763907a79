"""Contact sheets: pictures of many samples with their labels, for a look at the data before training.

A sample is a mapping with `id`, `image` (RGB uint8 `[H, W, 3]`), a label `[H, W, C]` for each labelled task, and
optionally a text `note`. Labels are canonical (`mtl_jax.data.records`) or transformed (`mtl_jax.data.transforms`).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from mtl_jax import tasks as task_table
from mtl_jax.data import records, transforms
from mtl_jax.drawing import panels
from mtl_jax.drawing.canvas import CAPTION, MARGIN, Cell, caption, grid, text_width
from mtl_jax.labels import Conventions
from mtl_jax.labels.kind import percent, resize
from mtl_jax.tasks import IGNORE

_OWN = Conventions()  # of data of one's own
NARROWEST = 230  # least width of a column in pixels; captions of narrower columns are illegible
WIDEST = 1.5  # greatest width of a picture, relative to the height of a row; wider pictures are scaled down
STRIPES = (105, 165)  # grey levels of the hatching of pixels without a label
SWATCH = 14  # height and width of a coloured square in the legend, in pixels


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
    recipe: transforms.Recipe,
    size: tuple[int, int],
    border: str,
    conventions: Conventions,
) -> dict[str, Any]:
    """Returns a sample after the training transform, with the image in 0..255 and a note of flip, angle and scale.

    Args:
        sample: Canonical sample from `records.decode`.
        rng: Random generator of flip, angle and scale.
        recipe: Augmentation protocol.
        size: Height and width of network inputs.
        border: "zero" or "ignore", see `transforms.scale_and_rotate`.
        conventions: Conventions of the data set.
    """
    drawn = transforms.draw(recipe, rng)
    seen = transforms.train_transform(sample, drawn, recipe, size, border, conventions=conventions)
    image = np.round(255 * (seen.pop("image") * transforms.STD + transforms.MEAN))
    note = f"{'flipped, ' if drawn.flip else ''}{drawn.angle:+.1f} deg, scale {drawn.scale:.2f}"
    return {"id": sample["id"], "image": np.clip(image, 0, 255).astype(np.uint8), "note": note, **seen}


def hatching(height: int, width: int) -> np.ndarray:
    """Draws diagonal stripes in two greys, the look of ignored pixels, as RGB uint8 `[height, width, 3]`."""
    y, x = np.indices((height, width))
    grey = np.where((x + y) // 5 % 2, *STRIPES).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def overlay(task: str, image: np.ndarray, label: Any) -> np.ndarray:
    """Draws a label over its image.

    Ignored pixels are hatched. A picture without labelled pixels shows the word "unlabelled".

    Args:
        task: Name of the task.
        image: RGB uint8 `[H, W, 3]`.
        label: Label `[H', W', C]`, which is resized to the image. None means that the image has no label.

    Returns:
        RGB uint8 `[H, W, 3]`.
    """
    kind = task_table.get(task).kind
    height, width = image.shape[:2]
    picture = hatching(height, width)
    if label is None or not kind.labelled(np.asarray(label)).any():
        _stamp(picture, "unlabelled")
        return picture
    small = kind.shrink(np.asarray(label), height, width)
    return np.where(kind.labelled(small)[..., None], kind.overlay(image, small), picture)


def describe(task: str, label: Any) -> tuple[str, str]:
    """Returns two lines of text on a label: the share of valid pixels, and a summary of the values.

    Args:
        task: Name of the task.
        label: Label `[H, W, C]` of an image. None means that the image has no label.
    """
    if label is None:
        return f"{task}: no label", ""
    kind, label = task_table.get(task).kind, np.asarray(label)
    valid = kind.labelled(label)
    if not valid.any():
        return f"{task}: every pixel ignored", ""
    return f"{task}: {percent(valid.mean())} valid", kind.summarise(label[valid])


def sheet(
    samples: Iterable[Mapping[str, Any]],
    tasks: Iterable[str],
    *,
    height: int = 240,
    names: Mapping[str, Sequence[str]] | None = None,
    conventions: Conventions = _OWN,
) -> np.ndarray:
    """Draws a contact sheet with a row for each sample and a legend of the colours below.

    A row shows the image, then the label of each task over the image.

    Args:
        samples: Samples, at least one.
        tasks: Names of the tasks, one for each column. The columns are in task order.
        height: Height of the pictures in pixels. Wide pictures are lower.
        names: {task: names of its classes}, for the legend.
        conventions: Label conventions of the data set, for the legend.

    Returns:
        RGB uint8 `[H', W', 3]`.

    Raises:
        ValueError: There is no sample, an image is not RGB uint8, or a task is unknown.
    """
    tasks = task_table.ordered(tasks)
    rows, present = (
        [],
        {task: np.zeros(0, np.int64) for task in tasks if task_table.get(task).kind.has_classes},
    )
    for sample in samples:  # one at a time, because all samples at their original size may not fit into memory
        rows.append(_row(sample, tasks, height))
        for task in present:
            if task in sample:
                present[task] = np.union1d(present[task], np.asarray(sample[task]).astype(np.int64))
    if not rows:
        raise ValueError("a contact sheet needs at least one sample")
    picture = grid(rows, narrowest=NARROWEST)
    return np.concatenate([picture, legend(tasks, present, picture.shape[1], names or {}, conventions)])


def _row(sample: Mapping[str, Any], tasks: Sequence[str], height: int) -> list[Cell]:
    """Returns the cells of a sample: its image, then the label of every task."""
    image = np.asarray(sample["image"])
    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
        raise ValueError(f"the image of {sample['id']!r} must be RGB uint8 [H, W, 3]; got {image.dtype} {image.shape}")
    detail = ", ".join(filter(None, (f"{image.shape[0]}x{image.shape[1]}", sample.get("note"))))
    scale = min(height / image.shape[0], WIDEST * height / image.shape[1])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    image = resize(image, height, width, cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    cells = [Cell((str(sample["id"]), detail), image)]
    for task in tasks:
        label = sample.get(task)
        cells.append(Cell(describe(task, label), overlay(task, image, label)))
    return cells


Entry = tuple[np.ndarray | None, str]  # (coloured square or None, text)


def legend(
    tasks: Sequence[str],
    present: Mapping[str, np.ndarray],
    width: int,
    names: Mapping[str, Sequence[str]],
    conventions: Conventions = _OWN,
) -> np.ndarray:
    """Draws the legend of the colours, RGB uint8 `[H', width, 3]`.

    Args:
        tasks: Names of the tasks on the sheet.
        present: {task: class ids that occur}, which may include 255.
        width: Width of the sheet in pixels.
        names: {task: names of its classes}.
        conventions: Label conventions of the data set.
    """
    lines: list[list[Entry]] = [[(hatching(SWATCH, SWATCH), "ignored or unlabelled")]]
    for task, ids in present.items():
        listed = names.get(task, ())
        entries: list[Entry] = [(None, f"{task}:")]
        for value in (int(value) for value in ids if value != IGNORE):
            color = panels.colorize(task, np.full((SWATCH, SWATCH, 1), value), label=True)
            entries.append((color, f"{value} {listed[value]}" if value < len(listed) else str(value)))
        lines.append(entries)
    meanings = {task: task_table.get(task).kind.legend(conventions) for task in tasks}
    lines += [[(None, f"{task}: {meaning}")] for task, meaning in meanings.items() if meaning]
    strips = [np.full((MARGIN, width, 3), 255, np.uint8)]
    for line in lines:
        strips.extend(_wrapped(line, width))
    return np.concatenate(strips)


def _wrapped(entries: Sequence[Entry], width: int) -> list[np.ndarray]:
    """Draws entries from left to right on as many white strips `[CAPTION, width, 3]` as they need."""
    strips: list[np.ndarray] = []
    x = width
    for swatch, text in entries:
        needed = text_width(text) + (0 if swatch is None else SWATCH + 4)
        if x + needed + MARGIN > width:
            strips.append(np.full((CAPTION, width, 3), 255, np.uint8))
            x = MARGIN
        if swatch is not None:
            strips[-1][3 : 3 + SWATCH, x : x + SWATCH] = swatch
            x, needed = x + SWATCH + 4, needed - SWATCH - 4
        caption(strips[-1][:, x : min(x + needed, width)], text)
        x += needed + 2 * MARGIN
    return strips


def _stamp(picture: np.ndarray, text: str) -> None:
    """Draws the text on a white field in the middle of the picture, if the picture is large enough."""
    height, width = picture.shape[:2]
    needed = text_width(text)
    y, x = (height - CAPTION) // 2, (width - needed) // 2
    if y >= 0 and x >= MARGIN:
        picture[y : y + CAPTION, x - MARGIN : x + needed + MARGIN] = 255
        caption(picture[y : y + CAPTION, x : x + needed], text)
