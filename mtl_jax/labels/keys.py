"""Keys: what the colours of a picture mean. `mtl_jax.drawing.keys` draws them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

Style = Literal["overlay", "map"]  # values laid over the image, or their colours alone
STYLES: tuple[Style, ...] = get_args(Style)
Color = tuple[int, int, int]  # red, green and blue, 0..255


@dataclass(frozen=True)
class Swatches:
    """Colours with names.

    Attributes:
        entries: Pairs of a colour and what it stands for, the most important first. A colour is a tuple, RGB uint8
            `[3]`, or a picture RGB uint8 `[12, 12, 3]`.
    """

    entries: tuple[tuple[Color | np.ndarray, str], ...]


@dataclass(frozen=True)
class Bar:
    """A scale of colours.

    Attributes:
        colors: Colours from the least to the greatest value, RGB uint8 `[N, 3]`.
        low: Value of the first colour.
        high: Value of the last colour.
        unit: Unit of the values.
        title: What the values are.
        clipped: Values above `high` have the last colour; then `high` has a tick.
    """

    colors: np.ndarray
    low: float
    high: float
    unit: str = ""
    title: str = ""
    clipped: bool = False


@dataclass(frozen=True)
class Ball:
    """A ball whose surface shows the colour of each direction that faces the viewer.

    Attributes:
        picture: RGB uint8 `[S, S, 3]`, white outside of the ball.
        title: What the directions are.
        lines: Names of the axes and of their colours.
    """

    picture: np.ndarray
    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Note:
    """A text.

    Attributes:
        text: What the colours mean.
    """

    text: str


Key = Swatches | Bar | Ball | Note


def name_of(value: int, names: Sequence[str]) -> str:
    """Returns the name of a class, or "class 7" where the names do not have it."""
    return names[value] if value < len(names) else f"class {value}"
