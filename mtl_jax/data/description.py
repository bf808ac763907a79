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
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mtl_jax import tasks as task_table
from mtl_jax.data import file_patterns, label_options
from mtl_jax.data.file_patterns import FilePattern
from mtl_jax.data.toml_table import (
    Table,
    is_list,
    is_path,
    is_split_name,
    is_tables,
    is_text,
    is_whole,
    shortened,
    with_tuples,
)
from mtl_jax.labels import LabelFiles

FILE = "dataset.toml"
NAME = r"\w[\w.-]*"  # names of data sets
REQUIRED_SPLITS = ("train", "val")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
ORIENTATIONS = ("upright", "stored")
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
_IMAGES = f"{label_options.FOLDER}, or a pattern with {{id}} such as '{{split}}/{{id}}.png'"


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

    def key(self, split_name: str, name: str) -> str:
        """Returns the id of an image in the data set, see `file_patterns`.

        Args:
            split_name: Text for {split} in patterns.
            name: Text for {id} in patterns.
        """
        return f"{split_name}/{name}" if self.by_split else name

    def split_name(self, split: str) -> str:
        """Returns the text for {split} in patterns."""
        return self.split_names.get(split, split)


def from_dict(stored: Mapping[str, Any]) -> Description:
    """Restores a description from the result of `to_dict` that was stored as JSON."""
    content = {name: with_tuples(value) for name, value in stored.items()}
    labels = {
        task: LabelFiles(**{name: with_tuples(value) for name, value in row.items()})
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
            f"{path} does not exist; a folder with data of your own needs one, docs/own_data.md shows what stands in it"
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


def _description(content: dict[str, Any], folder: str, problems: list[str]) -> Description:
    table = Table(content, "", problems)
    name = table.take(
        "name",
        folder,
        "letters, digits, '_', '-' and '.', a letter or digit first",
        lambda x: is_text(x) and bool(re.fullmatch(NAME, x)),
    )
    size = table.take(
        "image_size",
        None,
        f"[height, width], each at least {_SIDE[0]} and at most {_SIDE[1]}",
        lambda x: is_list(x, is_whole, 2) and all(_SIDE[0] <= side <= _SIDE[1] for side in x),
    )
    images = table.take("images", "images", _IMAGES, lambda x: is_path(x) and ("{" not in x or "{id}" in x))
    orientation = table.take(
        "orientation", "", " or ".join(map(repr, ORIENTATIONS)), lambda x: x in ("", *ORIENTATIONS)
    )
    lists, names = _splits(
        table.take("splits", {}, "a table or a list", lambda x: isinstance(x, dict | list)), problems
    )
    labels = {}
    named = table.take("tasks", {}, "a table for each task, for example [tasks.depth]", is_tables)
    for task, options in named.items():
        if task in task_table.TASKS:
            labels[task] = label_options.take(task, options, problems)
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
        if is_list(content, is_split_name) and set(REQUIRED_SPLITS) <= set(content):
            return dict.fromkeys(content, ""), {}
        problems.append(
            f"splits is {shortened(content)}, expected a list of names with {' and '.join(REQUIRED_SPLITS)}"
        )
        return {}, {}
    table = Table(content, "splits.", problems)
    lists, names = {}, {}
    for split in (*REQUIRED_SPLITS, *(name for name in content if name not in REQUIRED_SPLITS)):
        expected = 'the name of a file below this folder, or {name = "NAME", ids = "FILE"}'
        row = table.take(split, f"splits/{split}.txt", expected, lambda x: is_path(x) or isinstance(x, dict))
        if not re.fullmatch(r"\w+", split):
            problems.append(f"splits.{split} is no name of a split, expected letters, digits and '_'")
        if isinstance(row, str):
            lists[split] = row
            continue
        options = Table(row, f"splits.{split}.", problems)
        lists[split] = options.take("ids", "", "the name of a file below this folder", lambda x: x == "" or is_path(x))
        name = options.take("name", split, "the name of the split in patterns, without '/'", is_split_name)
        options.finish("ids and name")
        if name != split:
            names[split] = name
    return lists, names
