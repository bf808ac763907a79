"""The file `dataset.toml`, which describes a user's own images and labels and lies beside them.

    name = "kitchen"              # by default the folder's name
    image_size = [480, 640]       # height and width the network works at, in pixels
    images = "images"             # folder with ID.jpg, ID.jpeg or ID.png
    orientation = "upright"       # for images with an EXIF orientation: how their labels lie, "upright" or "stored"

    [splits]                      # files with one id a line
    train = "splits/train.txt"
    val = "splits/val.txt"

    [tasks.semseg]                # any of the tasks; a label is the file FOLDER/ID.SUFFIX, or missing
    folder = "semseg"             # by default the task's name
    suffix = ".png"               # or ".npy"
    classes = ["floor", "wall"]   # of semseg and human_parts: names in order, or how many there are
    first_id = 0                  # pixel value of the first class
    ignore = [255]                # pixel values that are no class

    [tasks.depth]
    unit = 0.001                  # metres of one step in integer files; files with fractions hold metres

Only `image_size` is required, and `classes` for semseg and human_parts; `orientation` where an image has one.
"""

import dataclasses
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mtl_jax import tasks as task_table
from mtl_jax.labels import LabelFiles

FILE = "dataset.toml"
SPLITS = ("train", "val")
SUFFIXES = (".png", ".npy")
ORIENTATIONS = ("upright", "stored")
_MOST_CLASSES = 255
_LATER = {"orientation": ""}  # {field that was added later: its default}
_FOLDER = "the name of a folder below this one"


@dataclass(frozen=True)
class Description:
    """The content of `dataset.toml`, see the module's docstring.

    Attributes:
        name: Name of the data set.
        image_size: Height and width of the network's input, in pixels.
        images: Folder of the images, below the data set's folder.
        orientation: How labels of images with an EXIF orientation lie, see `readers.photograph`.
        splits: {split: path of a file with one id in each line}.
        labels: {task: files of its labels}, in task order.
    """

    name: str
    image_size: tuple[int, int]
    images: str
    splits: Mapping[str, str]
    labels: Mapping[str, LabelFiles]
    orientation: str = ""

    @property
    def class_names(self) -> dict[str, tuple[str, ...]]:
        """{task: names of its classes} for the tasks that have classes."""
        return {task: label.classes for task, label in self.labels.items() if label.classes}


def from_dict(stored: Mapping[str, Any]) -> Description:
    """Restores a description from the result of `to_dict` that was stored as JSON."""
    labels = {
        task: LabelFiles(**{**row, "classes": tuple(row["classes"]), "ignore": tuple(row["ignore"])})
        for task, row in stored["labels"].items()
    }
    return Description(**{**stored, "image_size": tuple(stored["image_size"]), "labels": labels})


def to_dict(description: Description) -> dict[str, Any]:
    """Returns the description ready for JSON.

    What version 1 did not know is left out where it has its default: data sets that it built stay as they are.
    """
    content = dataclasses.asdict(description)
    return {name: value for name, value in content.items() if name not in _LATER or value != _LATER[name]}


def read(folder: str | Path) -> Description:
    """Reads `dataset.toml` in a folder.

    Raises:
        FileNotFoundError: The folder has no such file.
        ValueError: The file cannot be understood; the message lists all faults.
    """
    folder = Path(folder).expanduser().resolve()
    path = folder / FILE
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(
            f"{path} does not exist; a folder with data of your own needs one, the README shows what stands in it"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML: {error}") from error
    problems: list[str] = []
    description = _description(content, folder.name, problems)
    if problems:
        raise ValueError(f"{path} does not work: " + "; ".join(problems))
    return description


class _Table:
    """A reader of the entries of a TOML table that collects the faults of all entries."""

    def __init__(self, content: Any, where: str, problems: list[str]):
        self._content = dict(content) if isinstance(content, dict) else {}
        self._where, self._problems = where, problems
        if not isinstance(content, dict):
            self.wrong(where, content, "a table")

    def wrong(self, name: str, found: Any, expected: str) -> None:
        state = "is missing" if found in (None, (), {}) else f"is {found!r}"
        self._problems.append(f"{name} {state}, expected {expected}")

    def take(self, name: str, default: Any, expected: str, fits: Any) -> Any:
        """Returns an entry, or the default if the entry is missing or does not fit."""
        value = self._content.pop(name, default)
        if not fits(value):
            self.wrong(f"{self._where}{name}", value, expected)
            return default
        return value

    def finish(self, known: str) -> None:
        for name in self._content:
            self._problems.append(f"{self._where}{name} is not known; there are {known}")


def _description(content: dict[str, Any], folder: str, problems: list[str]) -> Description:
    table = _Table(content, "", problems)
    name = table.take(
        "name",
        folder,
        "letters, digits, '_', '-' and '.', a letter or digit first",
        lambda x: _text(x) and re.fullmatch(r"\w[\w.-]*", x),
    )
    size = table.take(
        "image_size", None, "[height, width], each at least 32", lambda x: _list(x, _whole, 2) and min(x) >= 32
    )
    images = table.take("images", "images", _FOLDER, _path)
    orientation = table.take(
        "orientation", "", " or ".join(map(repr, ORIENTATIONS)), lambda x: x in ("", *ORIENTATIONS)
    )
    splits = _Table(table.take("splits", {}, "a table", lambda x: isinstance(x, dict)), "splits.", problems)
    lists = {
        split: splits.take(split, f"splits/{split}.txt", "the name of a file below this folder", _path)
        for split in SPLITS
    }
    splits.finish(" and ".join(SPLITS))
    labels = {}
    named = table.take("tasks", {}, "a table for each task, for example [tasks.depth]", _tables)
    for task, options in named.items():
        if task in task_table.TASKS:
            labels[task] = _label(task, options, problems)
        else:
            problems.append(f"tasks.{task} is no task; the tasks are {', '.join(task_table.TASKS)}")
    table.finish("name, image_size, images, orientation, splits and tasks")
    ordered = {task: labels[task] for task in task_table.TASKS if task in labels}
    return Description(name, tuple(size or (0, 0)), images, lists, ordered, orientation)


def _label(task: str, options: Any, problems: list[str]) -> LabelFiles:
    table = _Table(options, f"tasks.{task}.", problems)
    kind = task_table.get(task).kind
    taken: dict[str, Any] = {"folder": table.take("folder", task, _FOLDER, _path)}
    taken["suffix"] = table.take("suffix", ".png", " or ".join(map(repr, SUFFIXES)), lambda x: x in SUFFIXES)
    if "classes" in kind.folder_options:
        classes = table.take(
            "classes",
            (),
            f"a list of names without repetition, or how many there are, from 2 to {_MOST_CLASSES}",
            _fits_classes,
        )
        taken["classes"] = tuple(classes) if isinstance(classes, list | tuple) else tuple(map(str, range(classes)))
        taken["first_id"] = table.take("first_id", 0, "a whole number of at least 0", lambda x: _whole(x) and x >= 0)
        ids = range(taken["first_id"], taken["first_id"] + len(taken["classes"]))
        default = [raw for raw in (task_table.IGNORE,) if raw not in ids]
        ignored = table.take("ignore", default, "a list of whole numbers", lambda x: _list(x, _whole))
        taken["ignore"] = tuple(ignored)
        if both := [raw for raw in ignored if raw in ids]:
            problems.append(f"tasks.{task}.ignore names {both}, which are pixel values of classes")
    if "unit" in kind.folder_options:
        expected = "metres, above 0" if kind.distance else "a number above 0"
        taken["unit"] = table.take("unit", kind.default_step(), expected, _positive)
    table.finish(", ".join(("folder", "suffix", *kind.folder_options)))
    return LabelFiles(**taken)


def _positive(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and x > 0


def _tables(x: Any) -> bool:
    return isinstance(x, dict) and len(x) > 0


def _text(x: Any) -> bool:
    return isinstance(x, str) and bool(x)


def _path(x: Any) -> bool:
    return _text(x) and not PurePosixPath(x).is_absolute() and ".." not in PurePosixPath(x).parts


def _whole(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool)


def _list(x: Any, fits: Any, length: int | None = None) -> bool:
    return isinstance(x, list) and all(map(fits, x)) and length in (None, len(x))


def _fits_classes(x: Any) -> bool:
    if _list(x, _text):
        return 2 <= len(x) <= _MOST_CLASSES and len(set(x)) == len(x)
    return _whole(x) and 2 <= x <= _MOST_CLASSES
