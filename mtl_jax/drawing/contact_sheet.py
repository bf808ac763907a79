"""Many samples on one sheet, labels drawn over their images, for people to look at before they train.

A sample is a mapping with `id`, `image` (RGB uint8 `[H, W, 3]`), a label `[H, W, C]` for each task it has one of,
canonical (`mtl_jax.data.records`) or transformed (`mtl_jax.data.transforms`), and maybe a `note`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from mtl_jax import tasks as task_table
from mtl_jax.data import records, transforms
from mtl_jax.drawing import panels
from mtl_jax.drawing.panels import CAPTION, MARGIN, labelled_pixels
from mtl_jax.tasks import IGNORE

ALPHA = 0.5  # of class colours and tints over the image
NARROWEST = 230  # pixels of a column: less would make captions illegible
WIDEST = 1.5  # width of a picture relative to the height of rows; panoramas become lower
EDGE, TINT, BOUNDARY = (255, 0, 80), (255, 170, 0), (255, 255, 255)
STRIPES = (105, 165)  # grey levels of the hatching where there is no label
SWATCH = 14
_LISTED = 9  # class ids spelled out in a caption


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
    height, width = image.shape[:2]
    picture = hatching(height, width)
    if label is None or not labelled_pixels(task, label).any():
        _stamp(picture, "unlabelled")
        return picture
    label = np.asarray(label)
    small = _resized(label.astype(np.float32), height, width, cv2.INTER_NEAREST)
    valid = labelled_pixels(task, small)
    if task_table.get(task).activation == "sigmoid" and height < label.shape[0]:
        # A line one pixel wide would become dots if only every n-th pixel were looked at.
        share = _resized(((label != IGNORE) & (label >= 0.5)).astype(np.float32), height, width, cv2.INTER_AREA)
        small = np.where(valid[..., None], share >= 0.25, IGNORE)
    return np.where(valid[..., None], OVERLAYS[task](task, image, small), picture)


def _blend(image: np.ndarray, color: Any) -> np.ndarray:
    return np.round((1 - ALPHA) * image + ALPHA * np.asarray(color)).astype(np.uint8)


def _classes(task: str, image: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Colours at half strength, a white line between two classes."""
    drawn = _blend(image, panels.colorize(task, label, label=True))
    drawn[_boundary(label[..., 0])] = BOUNDARY
    return drawn


def _tint(task: str, image: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Foreground in colour with a line around it, the rest darker."""
    inside = label[..., 0] >= 0.5
    drawn = np.where(inside[..., None], _blend(image, TINT), _blend(image, (0, 0, 0)))
    drawn[_boundary(inside)] = BOUNDARY
    return drawn


def _lines(task: str, image: np.ndarray, label: np.ndarray) -> np.ndarray:
    return np.where(label >= 0.5, np.array(EDGE, np.uint8), _blend(image, (255, 255, 255)))


def _opaque(task: str, image: np.ndarray, label: np.ndarray) -> np.ndarray:
    return panels.colorize(task, label, label=True)


OVERLAYS: dict[str, Callable[[str, np.ndarray, np.ndarray], np.ndarray]] = {
    "semseg": _classes,
    "human_parts": _classes,
    "sal": _tint,
    "normals": _opaque,
    "edge": _lines,
    "depth": _opaque,
}


def _boundary(plane: np.ndarray) -> np.ndarray:
    """Pixels whose right or lower neighbour has another value."""
    differs = np.zeros(plane.shape, bool)
    differs[:, :-1] |= plane[:, 1:] != plane[:, :-1]
    differs[:-1] |= plane[1:] != plane[:-1]
    return differs


def describe(task: str, label: Any) -> tuple[str, str]:
    """Two lines on a label: the share of valid pixels, and what its values are.

    Args:
        task: its name.
        label: one image's, `[H, W, C]`, or None.
    """
    if label is None:
        return f"{task}: no label", ""
    label = np.asarray(label)
    valid = labelled_pixels(task, label)
    if not valid.any():
        return f"{task}: every pixel ignored", ""
    return f"{task}: {_percent(valid.mean())} valid", DETAILS[task_table.get(task).activation](label[valid])


def _class_ids(values: np.ndarray) -> str:
    ids = [int(value) for value in np.unique(values)]
    more = f" +{len(ids) - _LISTED}" if len(ids) > _LISTED else ""
    return ("classes " if len(ids) > 1 else "class ") + " ".join(map(str, ids[:_LISTED])) + more


def _positives(values: np.ndarray) -> str:
    return f"{_percent((values >= 0.5).mean())} positive"


def _mean_vector(values: np.ndarray) -> str:
    return "mean " + ", ".join(f"{axis} {v:+.2f}" for axis, v in zip("xyz", values.mean(axis=0), strict=True))


def _range(values: np.ndarray) -> str:
    return f"{values.min():.2f} to {values.max():.2f} m"


DETAILS: dict[str, Callable[[np.ndarray], str]] = {
    "argmax": _class_ids,
    "sigmoid": _positives,
    "unit_vector": _mean_vector,
    "identity": _range,
}


def _percent(share: float) -> str:
    """In whole percent, but neither 0 nor 100 unless it is."""
    percent = 100 * float(share)
    if 0 < percent < 1 or 99 < percent < 100:
        return f"{min(max(percent, 0.1), 99.9):.1f} %"
    return f"{percent:.0f} %"


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
    rows, present = [], {task: np.zeros(0, np.int64) for task in tasks if _has_classes(task)}
    for sample in samples:  # one after the other: at their original size they need not fit into memory together
        rows.append(_row(sample, tasks, height))
        for task in present:
            if task in sample:
                present[task] = np.union1d(present[task], np.asarray(sample[task]).astype(np.int64))
    if not rows:
        raise ValueError("a contact sheet needs at least one sample")
    column = max(NARROWEST, *(picture.shape[1] for row in rows for _, _, picture in row))
    width = MARGIN + (1 + len(tasks)) * (column + MARGIN)
    strips = [np.full((MARGIN, width, 3), 255, np.uint8)]
    for row in rows:
        top = 2 * CAPTION
        strip = np.full((top + row[0][2].shape[0] + MARGIN, width, 3), 255, np.uint8)
        for i, (title, detail, picture) in enumerate(row):
            x = MARGIN + i * (column + MARGIN)
            panels.caption(strip[:CAPTION, x : x + column], title)
            panels.caption(strip[CAPTION:top, x : x + column], detail)
            strip[top : top + picture.shape[0], x : x + picture.shape[1]] = picture
        strips.append(strip)
    return np.concatenate([*strips, legend(tasks, present, width, names or {})])


def _row(sample: Mapping[str, Any], tasks: Sequence[str], height: int) -> list[tuple[str, str, np.ndarray]]:
    """(title, detail, picture) of the image and of every task."""
    image = np.asarray(sample["image"])
    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
        raise ValueError(f"the image of {sample['id']!r} must be RGB uint8 [H, W, 3]; got {image.dtype} {image.shape}")
    detail = ", ".join(filter(None, (f"{image.shape[0]}x{image.shape[1]}", sample.get("note"))))
    scale = min(height / image.shape[0], WIDEST * height / image.shape[1])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    image = _resized(image, height, width, cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    cells = [(str(sample["id"]), detail, image)]
    for task in tasks:
        label = sample.get(task)
        cells.append((*describe(task, label), overlay(task, image, label)))
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
    lines += [[(None, _MEANING[task])] for task in tasks if task in _MEANING]
    strips = [np.full((MARGIN, width, 3), 255, np.uint8)]
    for line in lines:
        strips.extend(_wrapped(line, width))
    return np.concatenate(strips)


_MEANING = {
    "normals": "normals: x red, y green, z blue, from dark (-1) to bright (+1)",
    "depth": "depth: from near (dark) to far (bright), every map over its own range",
}


def _wrapped(entries: Sequence[Entry], width: int) -> list[np.ndarray]:
    """White strips `[CAPTION, width, 3]` with swatches and their texts from left to right."""
    strips: list[np.ndarray] = []
    x = width
    for swatch, text in entries:
        needed = panels.text_width(text) + (0 if swatch is None else SWATCH + 4)
        if x + needed + MARGIN > width:
            strips.append(np.full((CAPTION, width, 3), 255, np.uint8))
            x = MARGIN
        if swatch is not None:
            strips[-1][3 : 3 + SWATCH, x : x + SWATCH] = swatch
            x, needed = x + SWATCH + 4, needed - SWATCH - 4
        panels.caption(strips[-1][:, x : min(x + needed, width)], text)
        x += needed + 2 * MARGIN
    return strips


def _has_classes(task: str) -> bool:
    return task_table.get(task).activation == "argmax"


def _resized(array: np.ndarray, height: int, width: int, interpolation: int) -> np.ndarray:
    resized = cv2.resize(np.ascontiguousarray(array), (width, height), interpolation=interpolation)
    return resized.reshape(height, width, array.shape[2])  # OpenCV drops a last axis of length 1


def _stamp(picture: np.ndarray, text: str) -> None:
    """A white field with the text in the middle of the picture, if it is large enough."""
    height, width = picture.shape[:2]
    needed = panels.text_width(text)
    y, x = (height - CAPTION) // 2, (width - needed) // 2
    if y >= 0 and x >= MARGIN:
        picture[y : y + CAPTION, x - MARGIN : x + needed + MARGIN] = 255
        panels.caption(picture[y : y + CAPTION, x : x + needed], text)
