"""Many samples on one sheet, labels drawn over their images, for people to look at before they train.

A sample is a mapping with `id`, `image` (RGB uint8 `[H, W, 3]`), a label `[H, W, C]` for each task it has one of,
canonical (`mtl_jax.data.records`) or transformed (`mtl_jax.data.transforms`), and maybe a `note`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from mtl_jax import tasks as task_table
from mtl_jax.data import records, transforms
from mtl_jax.drawing import panels
from mtl_jax.drawing.canvas import CAPTION, MARGIN, Cell, caption, grid, text_width
from mtl_jax.labels.kind import percent, resize
from mtl_jax.tasks import IGNORE

NARROWEST = 230  # pixels of a column: less would make captions illegible
WIDEST = 1.5  # width of a picture relative to the height of rows; panoramas become lower
STRIPES = (105, 165)  # grey levels of the hatching where there is no label
SWATCH = 14


def spread(length: int, count: int, start: int | None = None) -> list[int]:
    """Positions of at most `count` of `length` images: evenly spread, first and last included, or from `start` on.

    Raises:
        ValueError: none is asked for, or there is no image `start`.
    """
    if count < 1:
        raise ValueError(f"count is {count}; the least is 1")
    if start is None:
        return sorted({round(position) for position in np.linspace(0, length - 1, min(count, length))})
    if not 0 <= start < length:
        raise ValueError(f"start is {start}, but the images are 0 to {length - 1}")
    return list(range(start, min(start + count, length)))


def find(source: Any, ids: Sequence[str]) -> list[int]:
    """Positions of the images with these ids, in this order.

    Args:
        source: a `Split`, or records `{"id": ..., ...}` by position.

    Raises:
        ValueError: some id is not there; the message lists them, and some that are.
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
    border: str = "zero",
) -> dict[str, Any]:
    """A canonical sample as training sees it, with the image back in 0..255 and a note on what was drawn.

    Args:
        sample: from `records.decode`.
        rng: what flip, angle and scale are drawn from.
        recipe: the augmentation.
        size: (height, width) of network inputs.
        border: see `transforms.scale_and_rotate`.
    """
    drawn = transforms.draw(recipe, rng)
    seen = transforms.train_transform(sample, drawn, recipe, size, border)
    image = np.round(255 * (seen.pop("image") * transforms.STD + transforms.MEAN))
    note = f"{'flipped, ' if drawn.flip else ''}{drawn.angle:+.1f} deg, scale {drawn.scale:.2f}"
    return {"id": sample["id"], "image": np.clip(image, 0, 255).astype(np.uint8), "note": note, **seen}


def hatching(height: int, width: int) -> np.ndarray:
    """Diagonal stripes in two greys, RGB uint8 `[height, width, 3]`: what ignored pixels look like."""
    y, x = np.indices((height, width))
    grey = np.where((x + y) // 5 % 2, *STRIPES).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def overlay(task: str, image: np.ndarray, label: Any) -> np.ndarray:
    """The label drawn over the image, hatched where it is ignored; without any label the word "unlabelled".

    Args:
        task: its name.
        image: RGB uint8 `[H, W, 3]`.
        label: `[H', W', C]`, brought to the image's size; None: there is none.

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
    """Two lines on a label: the share of valid pixels, and what its values are.

    Args:
        task: its name.
        label: one image's, `[H, W, C]`, or None.
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
) -> np.ndarray:
    """A row for each sample: the image, then the label of each task over it; below, what the colours mean.

    Args:
        samples: at least one.
        tasks: the columns, which stand in task order.
        height: of the pictures in pixels, less where they are wide.
        names: {task: names of its classes}, for the legend.

    Returns:
        RGB uint8 `[H', W', 3]`.

    Raises:
        ValueError: no sample, an image that is not RGB uint8, or no such task.
    """
    tasks = task_table.ordered(tasks)
    rows, present = (
        [],
        {task: np.zeros(0, np.int64) for task in tasks if task_table.get(task).kind.has_classes},
    )
    for sample in samples:  # one after the other: at their original size they need not fit into memory together
        rows.append(_row(sample, tasks, height))
        for task in present:
            if task in sample:
                present[task] = np.union1d(present[task], np.asarray(sample[task]).astype(np.int64))
    if not rows:
        raise ValueError("a contact sheet needs at least one sample")
    picture = grid(rows, narrowest=NARROWEST)
    return np.concatenate([picture, legend(tasks, present, picture.shape[1], names or {})])


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


Entry = tuple[np.ndarray | None, str]  # a swatch, or none, and its text


def legend(
    tasks: Sequence[str], present: Mapping[str, np.ndarray], width: int, names: Mapping[str, Sequence[str]]
) -> np.ndarray:
    """What the colours mean, RGB uint8 `[H', width, 3]`.

    Args:
        tasks: drawn on the sheet.
        present: {task: class ids that occur}, 255 may be one of them.
        width: of the sheet.
        names: {task: names of its classes}.
    """
    lines: list[list[Entry]] = [[(hatching(SWATCH, SWATCH), "ignored or unlabelled")]]
    for task, ids in present.items():
        listed = names.get(task, ())
        entries: list[Entry] = [(None, f"{task}:")]
        for value in (int(value) for value in ids if value != IGNORE):
            color = panels.colorize(task, np.full((SWATCH, SWATCH, 1), value), label=True)
            entries.append((color, f"{value} {listed[value]}" if value < len(listed) else str(value)))
        lines.append(entries)
    meanings = {task: task_table.get(task).kind.legend for task in tasks}
    lines += [[(None, f"{task}: {meaning}")] for task, meaning in meanings.items() if meaning]
    strips = [np.full((MARGIN, width, 3), 255, np.uint8)]
    for line in lines:
        strips.extend(_wrapped(line, width))
    return np.concatenate(strips)


def _wrapped(entries: Sequence[Entry], width: int) -> list[np.ndarray]:
    """White strips `[CAPTION, width, 3]` with swatches and their texts from left to right."""
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
    """A white field with the text in the middle of the picture, if it is large enough."""
    height, width = picture.shape[:2]
    needed = text_width(text)
    y, x = (height - CAPTION) // 2, (width - needed) // 2
    if y >= 0 and x >= MARGIN:
        picture[y : y + CAPTION, x - MARGIN : x + needed + MARGIN] = 255
        caption(picture[y : y + CAPTION, x : x + needed], text)
