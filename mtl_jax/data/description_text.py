"""The text of a `dataset.toml`, see `mtl_jax.data.description`, which reads it."""

import json
from collections.abc import Iterator
from typing import Any

from mtl_jax import tasks as task_table
from mtl_jax.data.description import Description
from mtl_jax.labels import LabelFiles

_PLAIN = LabelFiles()


def text(description: Description) -> str:
    """Returns the text of the `dataset.toml` that `description.read` turns into this description.

    Entries with their defaults are left out. Colours of classes in files and other names of splits are not written.
    """
    lines = [f"name = {_value(description.name)}", f"image_size = {_value(description.image_size)}"]
    if description.images != "images":
        lines.append(f"images = {_value(description.images)}")
    if description.orientation:
        lines.append(f"orientation = {_value(description.orientation)}")
    lines += ["", "[splits]", *(f"{split} = {_value(path)}" for split, path in description.splits.items())]
    for task, files in description.labels.items():
        lines += ["", f"[tasks.{task}]", *(f"{name} = {_value(value)}" for name, value in _options(task, files))]
    return "\n".join(lines) + "\n"


def _options(task: str, files: LabelFiles) -> Iterator[tuple[str, Any]]:
    """Yields the entries (name, value) of a task's table."""
    kind = task_table.get(task).kind
    if files.derived_from:
        yield "from", files.derived_from
        return
    if files.pattern:
        yield "labels", files.pattern
    elif files.folder != task:
        yield "folder", files.folder
    if not files.pattern and files.suffix != _PLAIN.suffix:
        yield "suffix", files.suffix
    if files.classes:
        yield "classes", files.classes
    if files.first_id:
        yield "first_id", files.first_id
    if files.foreground:
        yield "foreground", files.foreground
    if files.foreground and files.background != _PLAIN.background:
        yield "background", files.background
    if (files.classes or files.foreground) and (files.foreground or files.ignore != _PLAIN.ignore):
        yield "ignore", files.ignore
    if "unit" in kind.folder_options and files.unit != kind.default_step():
        yield "unit", files.unit
    if files.invalid is not None:
        yield "invalid", files.invalid
    if files.max != _PLAIN.max:
        yield "max", files.max
    if files.axes:
        yield "axes", files.axes


def _value(value: Any) -> str:
    """Returns a text, a number or a list of them as TOML, which JSON's notation of these is."""
    return json.dumps(value, ensure_ascii=False)
