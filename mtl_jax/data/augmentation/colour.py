"""Steps that change the colours of the image and leave the labels as they are."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np

from mtl_jax.data import transforms
from mtl_jax.data.augmentation.step import Context, Step
from mtl_jax.data.transforms import Sample

Number = TypeVar("Number", float, int)

_LEVELS = np.arange(256, dtype=np.float32)
_HUES = 180  # values of the hue in OpenCV's HSV of 8 bits
_DEGREES = 360  # values of the hue in OpenCV's HSV of float32
_GREY = (0.2989, 0.587, 0.114)  # shares of red, green and blue in the grey of torchvision


class _ColourStep(Step):
    """A step that changes the image alone."""

    def apply(self, maps: Mapping[str, np.ndarray], drawn: Any, context: Context) -> Sample:
        out = dict(maps)
        if "image" in out:
            out["image"] = self.recolour(transforms.as_bytes(out["image"]), drawn)
        return out

    @abstractmethod
    def recolour(self, image: np.ndarray, drawn: Any) -> np.ndarray:
        """Returns an image with other colours, uint8 `[H, W, 3]`."""


class Distortion(NamedTuple):
    """Random numbers of `PhotometricDistortion`; None leaves out a change.

    Attributes:
        brightness: Number added to all levels.
        contrast: Factor of all levels.
        contrast_first: The contrast is changed before the saturation and the hue, not after them.
        saturation: Factor of the saturation.
        hue: Number added to the hue, in steps of 2 degrees.
    """

    brightness: float | None = None
    contrast: float | None = None
    contrast_first: bool = True
    saturation: float | None = None
    hue: int | None = None


@dataclass(frozen=True)
class PhotometricDistortion(_ColourStep):
    """Distorts brightness, contrast, saturation and hue, each in half of the images (SSD, arXiv 1512.02325).

    The ranges are those of mmsegmentation's PhotoMetricDistortion: brightness -32 to 32 levels, contrast and saturation
    0.5 to 1.5, hue -18 to 17 steps of 2 degrees. In half of the images the contrast comes second, otherwise last. After
    each change the levels are cut to 0..255 and to whole numbers, towards zero.

    Draws, in this order: whether to change brightness and by how much, when the contrast comes, and whether and by how
    much to change contrast, saturation and hue. All nine numbers are drawn, whether they are used or not.
    """

    def draw(self, rng: np.random.Generator) -> Distortion:
        brightness = _in_half(rng.random(), float(rng.uniform(-32, 32)))
        contrast_first = bool(rng.random() < 0.5)
        contrast = _in_half(rng.random(), float(rng.uniform(0.5, 1.5)))
        saturation = _in_half(rng.random(), float(rng.uniform(0.5, 1.5)))
        hue = _in_half(rng.random(), int(rng.integers(-18, 18)))
        return Distortion(brightness, contrast, contrast_first, saturation, hue)

    def recolour(self, image: np.ndarray, drawn: Distortion) -> np.ndarray:
        if drawn.brightness is not None:
            image = cv2.LUT(image, _cut(_LEVELS + np.float32(drawn.brightness)))
        if drawn.contrast is not None and drawn.contrast_first:
            image = _with_contrast(image, drawn.contrast)
        if drawn.saturation is not None:
            image = _in_hsv(image, saturations=_cut(_LEVELS * np.float32(drawn.saturation)))
        if drawn.hue is not None:
            image = _in_hsv(image, hues=((np.arange(256) + drawn.hue) % _HUES).astype(np.uint8))
        if drawn.contrast is not None and not drawn.contrast_first:
            image = _with_contrast(image, drawn.contrast)
        return image

    def note(self, drawn: Distortion) -> str:
        amounts = (drawn.brightness, drawn.contrast, drawn.saturation, drawn.hue)
        return "" if all(amount is None for amount in amounts) else "other colours"


class Jitter(NamedTuple):
    """Random numbers of `ColorJitter`.

    Attributes:
        brightness, contrast, saturation: Factors.
        hue: Part of the colour circle by which the hue turns.
        order: Order of the four changes, numbers from 0 in the order of the attributes.
    """

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    order: tuple[int, ...] = (0, 1, 2, 3)


@dataclass(frozen=True)
class ColorJitter(_ColourStep):
    """Changes brightness, contrast, saturation and hue in random order, as torchvision's ColorJitter does.

    Draws the order, then the four changes in the order of the attributes. Levels are cut to whole numbers, towards
    zero, as torchvision does with uint8 tensors.

    Attributes:
        brightness, contrast, saturation: The factor is drawn from [max(0, 1 - value), 1 + value].
        hue: The turn of the hue is drawn from [-hue, hue], parts of the colour circle.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        if min(self.brightness, self.contrast, self.saturation, self.hue) < 0 or self.hue > 0.5:
            raise ValueError(
                f"the jitter of brightness, contrast, saturation and hue is {self.brightness:g}+{self.contrast:g}+"
                f"{self.saturation:g}+{self.hue:g}; none may be below 0, and the hue not above 0.5"
            )

    def draw(self, rng: np.random.Generator) -> Jitter:
        order = tuple(int(number) for number in rng.permutation(4))
        widths = (self.brightness, self.contrast, self.saturation)
        brightness, contrast, saturation = (float(rng.uniform(max(0.0, 1 - w), 1 + w)) for w in widths)
        return Jitter(brightness, contrast, saturation, float(rng.uniform(-self.hue, self.hue)), order)

    def recolour(self, image: np.ndarray, drawn: Jitter) -> np.ndarray:
        changes: tuple[tuple[Callable[[np.ndarray, float], np.ndarray], float, float], ...] = (
            (_brighter, drawn.brightness, 1),
            (_more_contrast, drawn.contrast, 1),
            (_more_saturated, drawn.saturation, 1),
            (_turned_hue, drawn.hue, 0),
        )
        for change, amount, nothing in (changes[number] for number in drawn.order):
            image = change(image, amount) if amount != nothing else image
        return image

    def note(self, drawn: Jitter) -> str:
        return "other colours"


def _in_half(chance: float, value: Number) -> Number | None:
    return value if chance < 0.5 else None


def _cut(levels: np.ndarray) -> np.ndarray:
    """Returns levels cut to 0..255 and to whole numbers, uint8."""
    return np.clip(levels, 0, 255).astype(np.uint8)


def _with_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    return cv2.LUT(image, _cut(_LEVELS * np.float32(factor)))


def _in_hsv(image: np.ndarray, *, hues: np.ndarray | None = None, saturations: np.ndarray | None = None) -> np.ndarray:
    """Replaces hues (0..179) or saturations of an image by those of tables `[256]`, in OpenCV's HSV of 8 bits."""
    same = np.arange(256, dtype=np.uint8)
    table = [same if values is None else values for values in (hues, saturations, None)]
    hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), np.stack(table, axis=-1)[None])
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def _blend(image: np.ndarray, other: np.ndarray | float, factor: float) -> np.ndarray:
    """Returns factor * image + (1 - factor) * other, uint8."""
    return _cut(np.float32(factor) * image + np.float32(1 - factor) * np.asarray(other, np.float32))


def _grey(image: np.ndarray) -> np.ndarray:
    """Returns the grey levels `[H, W, 1]` of an image, whole numbers."""
    return np.floor(cv2.transform(image.astype(np.float32), np.array([_GREY], np.float32)))[..., None]


def _brighter(image: np.ndarray, factor: float) -> np.ndarray:
    return cv2.LUT(image, _blend(_LEVELS, 0.0, factor))


def _more_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    return cv2.LUT(image, _blend(_LEVELS, float(_grey(image).mean(dtype=np.float64)), factor))


def _more_saturated(image: np.ndarray, factor: float) -> np.ndarray:
    return _blend(image, _grey(image), factor)


def _turned_hue(image: np.ndarray, turn: float) -> np.ndarray:
    hsv = cv2.cvtColor(image.astype(np.float32) / np.float32(255), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + np.float32(_DEGREES * turn)) % _DEGREES
    return _cut(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * np.float32(256 - 1e-3))
