"""The options of a task in `dataset.toml`, which describe the files of its labels, see `mtl_jax.data.description`."""

import math
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

from mtl_jax import tasks as task_table
from mtl_jax.data.toml_table import (
    Table,
    are_numbers,
    are_whole,
    is_list,
    is_number,
    is_path,
    is_positive,
    is_text,
    is_whole,
    with_tuples,
)
from mtl_jax.labels import LabelFiles, LabelKind, axes
from mtl_jax.labels.label_files import LEVELS

SUFFIXES = (".png", ".npy")
FOLDER = "the name of a folder below this one"
_MOST_CLASSES = 255
_VALUES = "a list of whole numbers"
_COLORS = "a list of [red, green, blue], each from 0 to 255, without repetition"


def take(task: str, options: Any, problems: list[str]) -> LabelFiles:
    """Returns the label files that the table of a task describes.

    Args:
        task: Name of the task.
        options: Content of the table.
        problems: List that receives the faults.
    """
    table = Table(options, f"tasks.{task}.", problems)
    kind = task_table.get(task).kind
    taken: dict[str, Any] = {}
    if "from" in kind.folder_options and table.has("from"):
        taken["derived_from"] = table.take("from", "", "the name of a task with classes", is_text)
        table.finish("from, which stands in place of files")
        return LabelFiles(**taken)
    if table.has("labels"):
        expected = f"a pattern with {{id}} that ends in {' or '.join(map(repr, SUFFIXES))}"
        pattern = table.take("labels", "", expected, _label_pattern)
        taken |= {"pattern": pattern, "suffix": PurePosixPath(pattern).suffix.lower() or SUFFIXES[0]}
        if also := [name for name in ("folder", "suffix") if table.has(name)]:
            table.conflict(f"labels stands in place of {' and '.join(also)}; leave one")
    else:
        taken["folder"] = table.take("folder", task, FOLDER, is_path)
        taken["suffix"] = table.take("suffix", ".png", " or ".join(map(repr, SUFFIXES)), lambda x: x in SUFFIXES)
    for option in kind.folder_options:
        if option in _OPTIONS:
            taken |= _OPTIONS[option](table, kind)
    table.finish(", ".join(("folder", "suffix", "labels", *kind.folder_options)))
    return LabelFiles(**taken)


def _take_classes(table: Table, kind: LabelKind) -> dict[str, Any]:
    """Takes all options of class ids, which depend on each other."""
    expected = f"a list of names without repetition, or how many there are, from 2 to {_MOST_CLASSES}"
    classes = table.take("classes", (), expected, _fits_classes)
    names = tuple(classes) if isinstance(classes, list | tuple) else tuple(map(str, range(classes)))
    if table.has("colors"):
        colors = table.take("colors", [], _COLORS, _colors)
        ignored = table.take("ignore", [], _COLORS, _colors)
        if table.has("first_id"):
            table.conflict("first_id says nothing where `colors` gives the colour of each class; leave one")
        if len(colors) != len(names):
            table.conflict(f"colors has {len(colors)} colours, expected one for each of the {len(names)} classes")
        if both := [color for color in ignored if color in colors]:
            table.conflict(f"ignore names {both}, which are colours of classes")
        return {
            "classes": names,
            "colors": with_tuples(colors),
            "ignore_colors": with_tuples(ignored),
        }
    first = table.take("first_id", 0, "a whole number of at least 0", lambda x: is_whole(x) and x >= 0)
    ids = range(first, first + len(names))
    default = [raw for raw in (task_table.IGNORE,) if raw not in ids]
    ignored = table.take("ignore", default, _VALUES, are_whole)
    if both := [raw for raw in ignored if raw in ids]:
        table.conflict(f"ignore names {both}, which are pixel values of classes")
    return {"classes": names, "first_id": first, "ignore": tuple(ignored)}


def _take_foreground(table: Table, kind: LabelKind) -> dict[str, Any]:
    """Takes all options of foreground and background, which depend on each other."""
    if not table.has("foreground"):
        for option in ("background", "ignore"):
            if table.has(option):
                table.take(option, [], _VALUES, lambda x: True)
                table.conflict(f"{option} needs foreground, which says what the other values mean")
        return {}
    expected = f"{_VALUES}, or {LEVELS!r}"
    foreground = table.take("foreground", (), expected, lambda x: x == LEVELS or (are_whole(x) and len(x) > 0))
    taken = {"foreground": with_tuples(foreground)}
    taken["ignore"] = with_tuples(table.take("ignore", [], _VALUES, are_whole))
    if foreground == LEVELS:
        return taken
    taken["background"] = with_tuples(table.take("background", [0], _VALUES, are_whole))
    every = [value for values in taken.values() for value in values]
    if both := sorted({value for value in every if every.count(value) > 1}):
        table.conflict(f"foreground, background and ignore share {both}; a value has one meaning")
    return taken


def _take_unit(table: Table, kind: LabelKind) -> dict[str, Any]:
    expected = "metres, above 0" if kind.distance else "a number above 0"
    return {"unit": table.take("unit", kind.default_step(), expected, is_positive)}


def _take_invalid(table: Table, kind: LabelKind) -> dict[str, Any]:
    if not table.has("invalid"):
        return {}
    return {"invalid": with_tuples(table.take("invalid", [], "a list of numbers", are_numbers))}


def _take_max(table: Table, kind: LabelKind) -> dict[str, Any]:
    if not table.has("max"):
        return {}
    expected = "metres, above 0" if kind.distance else "a number"
    return {"max": float(table.take("max", math.inf, expected, is_positive if kind.distance else is_number))}


def _take_axes(table: Table, kind: LabelKind) -> dict[str, Any]:
    declared = table.take(
        "axes", "", f"{', '.join(map(repr, axes.NAMES))} or three letters", lambda x: isinstance(x, str)
    )
    if declared:
        try:
            axes.code(declared)
        except ValueError as error:
            table.conflict(str(error))
    return {"axes": declared}


# {option of a kind: function that takes it, and the options that it depends on, from the table of a task}
_OPTIONS: Mapping[str, Callable[[Table, LabelKind], dict[str, Any]]] = {
    "classes": _take_classes,
    "foreground": _take_foreground,
    "unit": _take_unit,
    "invalid": _take_invalid,
    "max": _take_max,
    "axes": _take_axes,
}


def _label_pattern(x: Any) -> bool:
    return is_path(x) and "{id}" in x and PurePosixPath(x).suffix.lower() in SUFFIXES


def _colors(x: Any) -> bool:
    of_bytes = is_list(x, lambda color: is_list(color, lambda value: is_whole(value) and 0 <= value <= 255, 3))
    return of_bytes and all(x.count(color) == 1 for color in x)


def _fits_classes(x: Any) -> bool:
    if is_list(x, is_text):
        return 2 <= len(x) <= _MOST_CLASSES and len(set(x)) == len(x)
    return is_whole(x) and 2 <= x <= _MOST_CLASSES
