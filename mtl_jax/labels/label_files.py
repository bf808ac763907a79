"""The files of a task's labels in a folder of one's own, and what the values in them mean."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mtl_jax.codecs import label_pictures
from mtl_jax.labels import readers

LEVELS = "levels"


@dataclass(frozen=True)
class LabelFiles:
    """The files of a task's labels, and how their values are coded.

    Attributes:
        folder: Folder of the files, below the data set's folder. "" where `pattern` or `derived_from` is given.
        suffix: ".png" or ".npy".
        classes: Names of the classes in order, of labels that are class ids.
        first_id: Pixel value of the first class.
        ignore: Pixel values that are no class, or neither foreground nor background.
        unit: Value of one step in files with whole numbers, in metres for depth; files with fractions hold values.
        pattern: Path of a file below the data set's folder, with {id} and {split}, in place of `folder`.
        derived_from: Task whose labels these labels are computed from, in place of files.
        colors: Colours (red, green, blue) of the classes in order, where files hold colours in place of class ids.
        ignore_colors: Colours that are no class.
        foreground: Pixel values of the foreground. "levels" means that values from 0 to 255 are probabilities. ()
            means that the folder does not say it.
        background: Pixel values of the background.
        invalid: Values in the file that mean "not measured". None means that the folder does not say it.
        max: Greatest value that counts as measured, in metres for depth.
        axes: Axes of vectors, see `mtl_jax.labels.axes`. "" means that the folder does not say it.
    """

    folder: str = ""
    suffix: str = ".png"
    classes: tuple[str, ...] = ()
    first_id: int = 0
    ignore: tuple[int, ...] = (255,)
    unit: float = 0.001
    pattern: str = ""
    derived_from: str = ""
    colors: tuple[tuple[int, int, int], ...] = ()
    ignore_colors: tuple[tuple[int, int, int], ...] = ()
    foreground: tuple[int, ...] | Literal["levels"] = ()
    background: tuple[int, ...] = (0,)
    invalid: tuple[float, ...] | None = None
    max: float = math.inf
    axes: str = ""

    def load(self, *, palette: bool = False) -> Callable[[bytes], np.ndarray]:
        """Returns the function that turns the content of such a file into an array.

        Args:
            palette: True if the indices of a PNG with a palette are the values; otherwise such a file is an error.
        """
        if self.suffix == ".npy":
            return readers.npy
        return label_pictures.values if palette else label_pictures.levels
