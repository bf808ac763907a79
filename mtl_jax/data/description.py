"""The file `dataset.toml`, which describes a user's own images and labels and lies beside them.

    name = "kitchen"              # by default the folder's name
    image_size = [480, 640]       # height and width the network works at, in pixels
    images = "images"             # folder with ID.jpg, ID.jpeg or ID.png; or a pattern, "{split}/{id}.png"
    orientation = "upright"       # for images with an EXIF orientation: how their labels lie, "upright" or "stored"

    [splits]                      # files with one id a line
    train = "splits/train.txt"
    val = "splits/val.txt"        # any number of further splits, for example test

    [tasks.semseg]                # any of the tasks; a label is the file FOLDER/ID.SUFFIX, or missing
    folder = "semseg"             # by default the task's name
    suffix = ".png"               # or ".npy"
    labels = "{split}annot/{id}.png"  # a pattern in place of folder and suffix
    classes = ["floor", "wall"]   # of semseg and human_parts: names in order, or how many there are
    first_id = 0                  # pixel value of the first class
    ignore = [255]                # pixel values that are no class
    colors = [[128, 0, 0], [0, 128, 0]]  # for files with colours: the colour of each class; `ignore` lists colours then

    [tasks.sal]                   # edge alike
    foreground = [1]              # pixel values of the foreground, or "levels": 0 to 255 is the share of foreground
    background = [0]
    ignore = [255]                # pixel values without a label

    [tasks.edge]
    from = "semseg"               # in place of files: the lines between the classes of this task

    [tasks.depth]
    unit = 0.001                  # metres of one step in integer files; files with fractions hold metres
    invalid = [65535]             # values in the file that mean "not measured", besides 0 and NaN
    max = 80.0                    # metres; what is farther counts as not measured

    [tasks.normals]
    axes = "opencv"               # x right, y down, z forward; or "opengl", "z-up", see `mtl_jax.labels.axes`

Only `image_size` is required, and `classes` for semseg and human_parts; other options where a file's meaning is not
clear without them.

{split} in a pattern is the name of the split. Where a split's folder has another name, or all files that are there
belong to the split, a table says so: `train = {name = "training"}`, or `splits = ["train", "val", "test"]` for splits
without lists of ids.
"""

import dataclasses
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from mtl_jax import tasks as task_table
from mtl_jax.data import file_patterns
from mtl_jax.data.file_patterns import FilePattern
from mtl_jax.labels import LabelFiles, LabelKind, axes
from mtl_jax.labels.label_files import LEVELS

FILE = "dataset.toml"
REQUIRED_SPLITS = ("train", "val")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
SUFFIXES = (".png", ".npy")
ORIENTATIONS = ("upright", "stored")
_MOST_CLASSES = 255
_SIDE = (32, 16384)  # least and greatest height and width, in pixels
_FIRST_FIELDS = {  # those of version 1, which are always stored
    "name",
    "image_size",
    "images",
    "splits",
    "labels",
    "folder",
    "suffix",
    "classes",
    "first_id",
    "ignore",
    "unit",
}
_FOLDER = "the name of a folder below this one"
_IMAGES = f"{_FOLDER}, or a pattern with {{id}} such as '{{split}}/{{id}}.png'"
_VALUES = "a list of whole numbers"
_COLORS = "a list of [red, green, blue], each from 0 to 255, without repetition"


@dataclass(frozen=True)
class Description:
    """The content of `dataset.toml`, see the module's docstring.

    Attributes:
        name: Name of the data set.
        image_size: Height and width of the network's input, in pixels.
        images: Folder or pattern of the images, below the data set's folder.
        orientation: How labels of images with an EXIF orientation lie, see `readers.photograph`.
        splits: {split: path of a file with one id in each line, "" if all images that are there belong to the split}.
        split_names: {split: text for {split} in patterns} where the text is not the split.
        labels: {task: files of its labels}, in task order.
    """

    name: str
    image_size: tuple[int, int]
    images: str
    splits: Mapping[str, str]
    labels: Mapping[str, LabelFiles]
    orientation: str = ""
    split_names: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def class_names(self) -> dict[str, tuple[str, ...]]:
        """{task: names of its classes} for the tasks that have classes."""
        return {task: label.classes for task, label in self.labels.items() if label.classes}

    @property
    def axes(self) -> str:
        """The axes of the vectors, "" where no task says it."""
        return next((label.axes for label in self.labels.values() if label.axes), "")

    @cached_property
    def image_files(self) -> FilePattern:
        """The images."""
        return file_patterns.parse(self.images, IMAGE_SUFFIXES)

    @cached_property
    def label_files(self) -> dict[str, FilePattern]:
        """{task: its label files} of the tasks that have files."""
        return {
            task: file_patterns.parse(label.pattern or label.folder, (label.suffix,))
            for task, label in self.labels.items()
            if not label.derived_from
        }

    @cached_property
    def by_split(self) -> bool:
        """True if ids begin with the name of the split, see `file_patterns`."""
        return any("{split}" in files.stem for files in (self.image_files, *self.label_files.values()))

    def split_name(self, split: str) -> str:
        """Returns the text for {split} in patterns."""
        return self.split_names.get(split, split)


def from_dict(stored: Mapping[str, Any]) -> Description:
    """Restores a description from the result of `to_dict` that was stored as JSON."""
    content = {name: _with_tuples(value) for name, value in stored.items()}
    labels = {
        task: LabelFiles(**{name: _with_tuples(value) for name, value in row.items()})
        for task, row in stored["labels"].items()
    }
    return Description(**{**content, "labels": labels})


def to_dict(description: Description) -> dict[str, Any]:
    """Returns the description ready for JSON.

    Fields that version 1 did not have are left out where they have their defaults, so that data sets that it built stay
    as they are.
    """
    content = _told(description)
    content["labels"] = {task: _told(label) for task, label in description.labels.items()}
    return content


def _told(row: Description | LabelFiles) -> dict[str, Any]:
    defaults = {
        field.name: field.default_factory() if callable(field.default_factory) else field.default
        for field in dataclasses.fields(row)
    }
    values = {name: getattr(row, name) for name in defaults}
    return {name: value for name, value in values.items() if name in _FIRST_FIELDS or value != defaults[name]}


def _with_tuples(value: Any) -> Any:
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def read(folder: str | Path) -> Description:
    """Reads `dataset.toml` in a folder.

    Raises:
        FileNotFoundError: The folder has no such file.
        ValueError: The file cannot be understood; the message lists all faults.
    """
    folder = Path(folder).expanduser().resolve()
    path = folder / FILE
    try:
        content = tomllib.loads(path.read_bytes().decode("utf-8-sig"))  # some editors write a byte order mark
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(
            f"{path} does not exist; a folder with data of your own needs one, the README shows what stands in it"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{path} is no description: its values are nested too deeply") from error
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
            self.wrong(where.removesuffix("."), content, "a table")

    def wrong(self, name: str, value: Any, expected: str) -> None:
        state = "is missing" if value in (None, (), {}) else f"is {_shortened(value)}"
        self._problems.append(f"{name} {state}, expected {expected}")

    def has(self, name: str) -> bool:
        return name in self._content

    def take(self, name: str, default: Any, expected: str, fits: Callable[[Any], bool]) -> Any:
        """Returns an entry, or the default if the entry is missing or does not fit."""
        value = self._content.pop(name, default)
        if not fits(value):
            self.wrong(f"{self._where}{name}", value, expected)
            return default
        return value

    def conflict(self, message: str) -> None:
        self._problems.append(f"{self._where}{message}")

    def finish(self, known: str) -> None:
        for name in self._content:
            self._problems.append(f"{self._where}{name} is not known; there are {known}")


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _description(content: dict[str, Any], folder: str, problems: list[str]) -> Description:
    table = _Table(content, "", problems)
    name = table.take(
        "name",
        folder,
        "letters, digits, '_', '-' and '.', a letter or digit first",
        lambda x: _text(x) and bool(re.fullmatch(r"\w[\w.-]*", x)),
    )
    size = table.take(
        "image_size",
        None,
        f"[height, width], each at least {_SIDE[0]} and at most {_SIDE[1]}",
        lambda x: _list(x, _whole, 2) and all(_SIDE[0] <= side <= _SIDE[1] for side in x),
    )
    images = table.take("images", "images", _IMAGES, lambda x: _path(x) and ("{" not in x or "{id}" in x))
    orientation = table.take(
        "orientation", "", " or ".join(map(repr, ORIENTATIONS)), lambda x: x in ("", *ORIENTATIONS)
    )
    lists, names = _splits(
        table.take("splits", {}, "a table or a list", lambda x: isinstance(x, dict | list)), problems
    )
    labels = {}
    named = table.take("tasks", {}, "a table for each task, for example [tasks.depth]", _tables)
    for task, options in named.items():
        if task in task_table.TASKS:
            labels[task] = _label(task, options, problems)
        else:
            problems.append(f"tasks.{task} is no task; the tasks are {', '.join(task_table.TASKS)}")
    table.finish("name, image_size, images, orientation, splits and tasks")
    for task, label in labels.items():
        source = label.derived_from
        if source and (source not in labels or labels[source].derived_from or not labels[source].classes):
            fitting = ", ".join(other for other, row in labels.items() if row.classes) or "none"
            problems.append(f"tasks.{task}.from is {source!r}, expected a task here with classes: {fitting}")
    ordered = {task: labels[task] for task in task_table.TASKS if task in labels}
    description = Description(name, tuple(size or (0, 0)), images, lists, ordered, orientation, names)
    if not problems and not all(lists.values()) and "{split}" not in description.image_files.stem:
        without = ", ".join(split for split, path in lists.items() if not path)
        problems.append(
            f"images is {images!r} without {{split}}, so it does not say which images belong to {without}; put "
            "{split} into it, or give files with ids in [splits]"
        )
    return description


def _splits(content: Any, problems: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Returns {split: file with its ids, or ""} and {split: text for {split}} where the text is not the split."""
    if isinstance(content, list):
        if _list(content, _split_name) and set(REQUIRED_SPLITS) <= set(content):
            return dict.fromkeys(content, ""), {}
        problems.append(
            f"splits is {_shortened(content)}, expected a list of names with {' and '.join(REQUIRED_SPLITS)}"
        )
        return {}, {}
    table = _Table(content, "splits.", problems)
    lists, names = {}, {}
    for split in (*REQUIRED_SPLITS, *(name for name in content if name not in REQUIRED_SPLITS)):
        expected = 'the name of a file below this folder, or {name = "NAME", ids = "FILE"}'
        row = table.take(split, f"splits/{split}.txt", expected, lambda x: _path(x) or isinstance(x, dict))
        if not re.fullmatch(r"\w+", split):
            problems.append(f"splits.{split} is no name of a split, expected letters, digits and '_'")
        if isinstance(row, str):
            lists[split] = row
            continue
        options = _Table(row, f"splits.{split}.", problems)
        lists[split] = options.take("ids", "", "the name of a file below this folder", lambda x: x == "" or _path(x))
        name = options.take("name", split, "the name of the split in patterns, without '/'", _split_name)
        options.finish("ids and name")
        if name != split:
            names[split] = name
    return lists, names


def _label(task: str, options: Any, problems: list[str]) -> LabelFiles:
    table = _Table(options, f"tasks.{task}.", problems)
    kind = task_table.get(task).kind
    taken: dict[str, Any] = {}
    if "from" in kind.folder_options and table.has("from"):
        taken["derived_from"] = table.take("from", "", "the name of a task with classes", _text)
        table.finish("from, which stands in place of files")
        return LabelFiles(**taken)
    if table.has("labels"):
        expected = f"a pattern with {{id}} that ends in {' or '.join(map(repr, SUFFIXES))}"
        pattern = table.take("labels", "", expected, _label_pattern)
        taken |= {"pattern": pattern, "suffix": PurePosixPath(pattern).suffix.lower() or SUFFIXES[0]}
        if also := [name for name in ("folder", "suffix") if table.has(name)]:
            table.conflict(f"labels stands in place of {' and '.join(also)}; leave one")
    else:
        taken["folder"] = table.take("folder", task, _FOLDER, _path)
        taken["suffix"] = table.take("suffix", ".png", " or ".join(map(repr, SUFFIXES)), lambda x: x in SUFFIXES)
    for option in kind.folder_options:
        if option in _OPTIONS:
            taken |= _OPTIONS[option](table, kind)
    table.finish(", ".join(("folder", "suffix", "labels", *kind.folder_options)))
    return LabelFiles(**taken)


def _take_classes(table: _Table, kind: LabelKind) -> dict[str, Any]:
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
        return {"classes": names, "colors": _with_tuples(colors), "ignore_colors": _with_tuples(ignored)}
    first = table.take("first_id", 0, "a whole number of at least 0", lambda x: _whole(x) and x >= 0)
    ids = range(first, first + len(names))
    default = [raw for raw in (task_table.IGNORE,) if raw not in ids]
    ignored = table.take("ignore", default, _VALUES, lambda x: _list(x, _whole))
    if both := [raw for raw in ignored if raw in ids]:
        table.conflict(f"ignore names {both}, which are pixel values of classes")
    return {"classes": names, "first_id": first, "ignore": tuple(ignored)}


def _take_foreground(table: _Table, kind: LabelKind) -> dict[str, Any]:
    """Takes all options of foreground and background, which depend on each other."""
    if not table.has("foreground"):
        for option in ("background", "ignore"):
            if table.has(option):
                table.take(option, [], _VALUES, lambda x: True)
                table.conflict(f"{option} needs foreground, which says what the other values mean")
        return {}
    expected = f"{_VALUES}, or {LEVELS!r}"
    foreground = table.take("foreground", (), expected, lambda x: x == LEVELS or (_list(x, _whole) and len(x) > 0))
    taken = {"foreground": _with_tuples(foreground)}
    taken["ignore"] = _with_tuples(table.take("ignore", [], _VALUES, lambda x: _list(x, _whole)))
    if foreground == LEVELS:
        return taken
    taken["background"] = _with_tuples(table.take("background", [0], _VALUES, lambda x: _list(x, _whole)))
    every = [value for values in taken.values() for value in values]
    if both := sorted({value for value in every if every.count(value) > 1}):
        table.conflict(f"foreground, background and ignore share {both}; a value has one meaning")
    return taken


def _take_unit(table: _Table, kind: LabelKind) -> dict[str, Any]:
    expected = "metres, above 0" if kind.distance else "a number above 0"
    return {"unit": table.take("unit", kind.default_step(), expected, _positive)}


def _take_invalid(table: _Table, kind: LabelKind) -> dict[str, Any]:
    if not table.has("invalid"):
        return {}
    return {"invalid": _with_tuples(table.take("invalid", [], "a list of numbers", lambda x: _list(x, _number)))}


def _take_max(table: _Table, kind: LabelKind) -> dict[str, Any]:
    if not table.has("max"):
        return {}
    expected = "metres, above 0" if kind.distance else "a number"
    return {"max": float(table.take("max", math.inf, expected, _positive if kind.distance else _number))}


def _take_axes(table: _Table, kind: LabelKind) -> dict[str, Any]:
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
_OPTIONS: Mapping[str, Callable[[_Table, LabelKind], dict[str, Any]]] = {
    "classes": _take_classes,
    "foreground": _take_foreground,
    "unit": _take_unit,
    "invalid": _take_invalid,
    "max": _take_max,
    "axes": _take_axes,
}


def _number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool)


def _positive(x: Any) -> bool:
    return _number(x) and 0 < x < math.inf


def _tables(x: Any) -> bool:
    return isinstance(x, dict) and len(x) > 0


def _text(x: Any) -> bool:
    return isinstance(x, str) and bool(x)


def _path(x: Any) -> bool:
    return _text(x) and "\0" not in x and not PurePosixPath(x).is_absolute() and ".." not in PurePosixPath(x).parts


def _label_pattern(x: Any) -> bool:
    return _path(x) and "{id}" in x and PurePosixPath(x).suffix.lower() in SUFFIXES


def _split_name(x: Any) -> bool:
    return _path(x) and "/" not in x


def _whole(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool)


def _list(x: Any, fits: Callable[[Any], bool], length: int | None = None) -> bool:
    return isinstance(x, list) and all(map(fits, x)) and length in (None, len(x))


def _colors(x: Any) -> bool:
    of_bytes = _list(x, lambda color: _list(color, lambda value: _whole(value) and 0 <= value <= 255, 3))
    return of_bytes and all(x.count(color) == 1 for color in x)


def _fits_classes(x: Any) -> bool:
    if _list(x, _text):
        return 2 <= len(x) <= _MOST_CLASSES and len(set(x)) == len(x)
    return _whole(x) and 2 <= x <= _MOST_CLASSES
