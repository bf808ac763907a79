"""The step that hides a rectangle of the image."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from mtl_jax import tasks
from mtl_jax.data.augmentation.geometry import MEAN_COLOR
from mtl_jax.data.augmentation.step import Context, Step, check_probability
from mtl_jax.data.transforms import Sample
from mtl_jax.notation import Interval

AREA = Interval(0.02, 0.2)  # part of the image that a rectangle covers
_NARROWEST = 0.3  # aspect ratio of the narrowest rectangle; the widest one has its inverse


class Hole(NamedTuple):
    """Random numbers of `Cutout`.

    Attributes:
        area: Part of the image that the rectangle covers.
        aspect: Height of the rectangle by its width.
        top, left: Position, as shares of the room that the rectangle leaves.
    """

    area: float
    aspect: float
    top: float
    left: float


@dataclass(frozen=True)
class Cutout(Step):
    """Hides a rectangle of the image under ImageNet's mean colour (arXiv 1708.04552 and 1708.04896).

    Draws whether to hide a rectangle, its area, the logarithm of its aspect ratio (0.3 to 1 / 0.3), and its position
    from above and from the left: five numbers, whether they are used or not.

    Attributes:
        probability: Share of the samples with a rectangle.
        area: Part of the image that the rectangle covers.
        labels: "ignore" removes the labels of the hidden pixels, "keep" keeps them.
    """

    probability: float
    area: Interval = AREA
    labels: Literal["ignore", "keep"] = "ignore"

    def __post_init__(self) -> None:
        check_probability("cutout", self.probability)
        if not (self.area.low > 0 and self.area.high < 1):
            raise ValueError(f"cutout_area is {self.area}; give parts of the image between 0 and 1, such as 0.02-0.2")

    def draw(self, rng: np.random.Generator) -> Hole | None:
        hides = bool(rng.random() < self.probability)
        area, bound = float(rng.uniform(*self.area)), -math.log(_NARROWEST)
        aspect = math.exp(rng.uniform(-bound, bound))
        hole = Hole(area, aspect, float(rng.random()), float(rng.random()))
        return hole if hides else None

    def apply(self, maps: Mapping[str, np.ndarray], drawn: Hole | None, context: Context) -> Sample:
        if drawn is None:
            return dict(maps)
        out = {}
        for name, x in maps.items():
            is_label = name in tasks.TASKS
            if not is_label or self.labels == "ignore":
                x = x.copy()
                x[_rectangle(drawn, x.shape[0], x.shape[1])] = tasks.get(name).kind.void if is_label else MEAN_COLOR
            out[name] = x
        return out

    def note(self, drawn: Hole | None) -> str:
        return "" if drawn is None else f"{100 * drawn.area:.0f} % hidden"


def _rectangle(hole: Hole, height: int, width: int) -> tuple[slice, slice]:
    """Returns the rows and columns of a hole in an image; a rectangle longer than the image is cut to it."""
    pixels = hole.area * height * width
    tall = min(height, max(1, round(math.sqrt(pixels * hole.aspect))))
    wide = min(width, max(1, round(math.sqrt(pixels / hole.aspect))))
    top, left = int(hole.top * (height - tall + 1)), int(hole.left * (width - wide + 1))
    return slice(top, top + tall), slice(left, left + wide)
