"""Steps that move the pixels of all maps: flip, rotation, scale, crop, padding."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from mtl_jax import tasks
from mtl_jax.data import placing, transforms
from mtl_jax.data.augmentation.step import Context, Step, check_probability
from mtl_jax.data.transforms import Sample
from mtl_jax.images import MEAN
from mtl_jax.labels import IGNORE
from mtl_jax.notation import Interval

# An interval from which a scale is drawn evenly, or scales from which one is drawn.
Scales = Interval | tuple[float, ...]
MEAN_COLOR = tuple(int(channel) for channel in np.rint(255 * MEAN).ravel())  # the colour that is 0 after normalisation
_UNSCALED = Interval(1.0, 1.0)
_CHECKS = 10  # crops that are looked at, before the next one is taken as it is


@dataclass(frozen=True)
class Flip(Step):
    """Mirrors all maps left to right; normals are mirrored, too. Draws one number.

    Attributes:
        probability: Share of the samples that are mirrored.
    """

    probability: float

    def __post_init__(self) -> None:
        check_probability("flip", self.probability)

    def draw(self, rng: np.random.Generator) -> bool:
        return bool(rng.random() < self.probability)

    def apply(self, maps: Mapping[str, np.ndarray], drawn: bool, context: Context) -> Sample:
        return transforms.flip(maps, context.conventions) if drawn else dict(maps)

    def note(self, drawn: bool) -> str:
        return "flipped" if drawn else ""


class Turn(NamedTuple):
    """Random numbers of `RotateAndScale`.

    Attributes:
        angle: Angle of the rotation in degrees, counter-clockwise in the image.
        scale: Scale; values above 1 enlarge.
    """

    angle: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True)
class RotateAndScale(Step):
    """Rotates and scales all maps about their centre; the maps keep their size. Draws the angle, then the scale.

    Attributes:
        rotation: Largest angle in degrees. The angle is drawn from [-rotation, rotation].
        scale: Scales.
    """

    rotation: float = 0.0
    scale: Scales = _UNSCALED

    def __post_init__(self) -> None:
        _check_rotation(self.rotation)
        _check_scales(self.scale)

    def draw(self, rng: np.random.Generator) -> Turn:
        return Turn(float(rng.uniform(-self.rotation, self.rotation)), _draw_scale(self.scale, rng))

    def apply(self, maps: Mapping[str, np.ndarray], drawn: Turn, context: Context) -> Sample:
        if not self._warps and drawn == Turn():
            return dict(maps)
        return transforms.scale_and_rotate(maps, *drawn, context.resampling, context.border, context.conventions)

    @property
    def _warps(self) -> bool:
        return self.rotation != 0 or self.scale != _UNSCALED

    def note(self, drawn: Turn) -> str:
        angle = f"{drawn.angle:+.1f} deg" if self.rotation else ""
        scale = f"scale {drawn.scale:.2f}" if self.scale != _UNSCALED else ""
        return ", ".join(filter(None, (angle, scale)))


@dataclass(frozen=True)
class Stretch(Step):
    """Resizes all maps to the size of the network's input, whatever their aspect ratio. Draws nothing."""

    def apply(self, maps: Mapping[str, np.ndarray], drawn: None, context: Context) -> Sample:
        return transforms.resize(maps, context.size, context.resampling, context.conventions)


@dataclass(frozen=True)
class Scale(Step):
    """Resizes all maps and keeps their aspect ratio. Draws the scale.

    Scale 1 is the size at which evaluation sees the image: its own, or the largest that fits into the network's input
    where the image is larger, see `placing.fitted`.

    Attributes:
        scale: Scales.
    """

    scale: Scales

    def __post_init__(self) -> None:
        _check_scales(self.scale)

    def draw(self, rng: np.random.Generator) -> float:
        return _draw_scale(self.scale, rng)

    def apply(self, maps: Mapping[str, np.ndarray], drawn: float, context: Context) -> Sample:
        height, width = placing.fitted(_size(maps), context.size)
        size = (max(1, int(height * drawn)), max(1, int(width * drawn)))
        scaled = transforms.resize(maps, size, context.resampling, context.conventions)
        return transforms.over_scale(scaled, drawn) if context.resampling.distances_over_scale else scaled

    def note(self, drawn: float) -> str:
        return f"scale {drawn:.2f}"


@dataclass(frozen=True)
class Crop(Step):
    """Cuts a part of the size of the network's input out of all maps; maps with smaller sides keep those.

    A part in which one class dominates is rejected, up to ten times: the most frequent class has `max_class` of the
    labelled pixels or more. Draws eleven pairs of numbers in [0, 1), the shares of the room above and to the left.

    Attributes:
        max_class: Share of the most frequent class from which on a part is rejected; above 1 none is.
        task: Task whose classes are counted. Where a sample has no such label, the first part is taken.
    """

    max_class: float = 0.75
    task: str = "semseg"

    def __post_init__(self) -> None:
        if self.max_class <= 0:
            raise ValueError(f"max_class is {self.max_class:g}; it must be above 0, and above 1 it rejects nothing")

    @property
    def looks_at(self) -> tuple[str, ...]:
        return (self.task,) if self.max_class <= 1 else ()

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Returns the shares of the room above and to the left, `[11, 2]`."""
        return rng.random((_CHECKS + 1, 2))

    def settle(self, sample: Mapping[str, np.ndarray], drawn: np.ndarray, context: Context) -> np.ndarray:
        """Returns the shares of the first part that is not rejected, `[1, 2]`."""
        if self.task not in sample:
            return drawn[:1]
        classes = sample[self.task]
        chosen = next(
            (i for i in range(_CHECKS) if self._is_mixed(_part(classes, drawn[i], context.size))),
            _CHECKS,
        )
        return drawn[chosen : chosen + 1]

    def _is_mixed(self, classes: np.ndarray) -> bool:
        counts = np.bincount(classes.ravel(), minlength=IGNORE + 1)[:IGNORE]
        return bool(np.count_nonzero(counts) > 1 and counts.max() < self.max_class * counts.sum())

    def apply(self, maps: Mapping[str, np.ndarray], drawn: np.ndarray, context: Context) -> Sample:
        return {name: _part(x, drawn[0], context.size) for name, x in maps.items()}


@dataclass(frozen=True)
class Pad(Step):
    """Puts all maps into the middle of the network's input. Draws nothing.

    The image has ImageNet's mean colour outside, which is about 0 after the normalisation. Labels have no value there.
    """

    def apply(self, maps: Mapping[str, np.ndarray], drawn: None, context: Context) -> Sample:
        height, width = _size(maps)
        top, left = placing.offsets((height, width), context.size)
        below, right = context.size[0] - height - top, context.size[1] - width - left
        if (top, left, below, right) == (0, 0, 0, 0):
            return dict(maps)
        out = {}
        for name, x in maps.items():
            outside = (tasks.get(name).kind.void,) * 4 if name in tasks.TASKS else MEAN_COLOR
            padded = cv2.copyMakeBorder(x, top, below, left, right, cv2.BORDER_CONSTANT, value=outside)
            out[name] = padded.reshape(*context.size, x.shape[2])
        return out


def _size(maps: Mapping[str, np.ndarray]) -> tuple[int, int]:
    height, width = next(iter(maps.values())).shape[:2]
    return height, width


def _part(x: np.ndarray, share: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns the part of a map `[H, W, C]` whose position is a share (vertical, horizontal) of the room there is."""
    room = [max(given - wanted, 0) for given, wanted in zip(x.shape[:2], size, strict=True)]
    top, left = (int(part * (most + 1)) for part, most in zip(share, room, strict=True))
    return x[top : top + size[0], left : left + size[1]]


def _draw_scale(scales: Scales, rng: np.random.Generator) -> float:
    if isinstance(scales, Interval):
        return float(rng.uniform(*scales))
    return scales[int(rng.integers(len(scales)))]


def _check_rotation(rotation: float) -> None:
    if not 0 <= rotation <= 180:
        raise ValueError(f"rotation is {rotation:g}; the largest angle is from 0 to 180 degrees")


def _check_scales(scales: Scales) -> None:
    if not scales or min(scales) <= 0:
        raise ValueError(f"scale is {scales}; give scales above 0, as the interval 0.5-2 or as the choices 1+1.2+1.5")
