"""Writing of a folder data set, see `mtl_jax.data.description`: images, label files, lists of ids, description."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mtl_jax import tasks as task_table
from mtl_jax.codecs import pictures
from mtl_jax.data import description, description_text
from mtl_jax.data.description import Description
from mtl_jax.data.file_builder import is_file_name
from mtl_jax.labels import Conventions, LabelFiles
from mtl_jax.runtime import atomic_files

_SUFFIXES = {pictures.PNG: ".png", pictures.JPEG: ".jpg"}  # by the first bytes of a file


class FolderWriter:
    """A new folder data set. `write` may be called in several threads; `finish` makes the folder a data set.

    Args:
        root: The folder, which must not exist or be empty.
        image_size: (height, width) of the inputs of networks that learn from it, in pixels.
        class_names: {task: names of its classes} for the tasks with classes.
        tasks: Tasks with labels.
        conventions: Label conventions of the labels that are written.

    Attributes:
        root: The folder, as an absolute path.
        conventions: Label conventions of the labels that are written.

    Raises:
        FileExistsError: The folder has files in it.
        ValueError: The name of the folder cannot be that of a data set.
    """

    def __init__(
        self,
        root: Path,
        image_size: tuple[int, int],
        class_names: Mapping[str, Sequence[str]],
        tasks: Sequence[str],
        conventions: Conventions,
    ):
        root = root.expanduser().resolve()
        if not re.fullmatch(description.NAME, root.name):
            raise ValueError(
                f"the folder {root} gives the data set its name, and {root.name!r} is none; name the folder by "
                "letters, digits, '_', '-' and '.', a letter or digit first"
            )
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise FileExistsError(f"{root} exists and is no empty folder; give the name of a new one")
        self.root, self.conventions = root, conventions
        self._kinds = {task: task_table.get(task).kind for task in task_table.ordered(tasks)}
        self._files = {
            task: kind.written_files(class_names.get(task, ()), conventions) for task, kind in self._kinds.items()
        }
        self._image_size = image_size

    def write(self, key: str, data: bytes | None, image: np.ndarray, labels: Mapping[str, np.ndarray]) -> None:
        """Writes an image and its labels.

        Args:
            key: Id of the image, which may name folders.
            data: Content of the image's file. It is copied where it is an intact JPEG or PNG whose pixels lie as they
                are seen, and otherwise `image` is written as PNG. None = there is no file.
            image: The image as its labels see it, RGB uint8 `[H, W, 3]`.
            labels: {task: canonical label `[H, W, channels]`}.

        Raises:
            ValueError: The id is no name of a file below a folder.
            OSError: A file cannot be written.
        """
        if not is_file_name(key):
            raise ValueError(f"the id {key!r} of an image is no name of a file below a folder; give it another id")
        suffix = _suffix(data) if data is not None else ""
        content = data if data is not None and suffix else pictures.encode_png(image)
        self._put(f"images/{key}{suffix or '.png'}", content)
        for task, label in labels.items():
            self._put(f"{task}/{key}{self._files[task].suffix}", self._kinds[task].encode_label(label))

    def finish(self, splits: Mapping[str, Sequence[str]]) -> Path:
        """Writes the lists of ids and the description, and returns the folder.

        Args:
            splits: {split: ids of its images}, with "train" and "val".

        Raises:
            OSError: A file cannot be written.
        """
        lists = {split: f"splits/{split}.txt" for split in splits}
        for split, keys in splits.items():
            self._put(lists[split], "".join(f"{key}\n" for key in keys).encode())
        for task in self._kinds:
            (self.root / task).mkdir(exist_ok=True)  # the build expects the folder of a task without any label, too
        content = description_text.text(
            Description(self.root.name, self._image_size, "images", lists, self._described())
        )
        atomic_files.write(self.root / description.FILE, content.encode())
        return self.root

    def _described(self) -> dict[str, LabelFiles]:
        return {task: dataclasses.replace(files, folder=task) for task, files in self._files.items()}

    def _put(self, name: str, content: bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_files.write(path, content, sync=False)  # there are thousands of them; the description comes last


def _suffix(data: bytes) -> str:
    """Returns the suffix of an image's file that a folder data set can hold as it is, "" for other files."""
    suffix = next((suffix for start, suffix in _SUFFIXES.items() if data.startswith(start)), "")
    return suffix if suffix and pictures.orientation(data) == 1 and not pictures.damage(data) else ""
