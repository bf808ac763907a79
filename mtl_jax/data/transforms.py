"""Transforms of the maps of a sample: NumPy arrays with OpenCV. `mtl_jax.data.augmentation` composes recipes of them.

A sample is a dict with `image` `[H, W, 3]` and a label `[H, W, C]` for each labelled task (`mtl_jax.data.records`).
Maps keep their type through flip, rotation and resizing, except for interpolated integers, which become float32.

The transforms use OpenCV even where NumPy is more familiar, because OpenCV is several times as fast for maps with three
channels in the last axis.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from mtl_jax import tasks
from mtl_jax.images import MEAN, STD
from mtl_jax.labels import IGNORE, INTERPOLATIONS, Conventions, LabelKind
from mtl_jax.labels.sizes import Interpolation

Sample = dict[str, np.ndarray]

BORDERS = ("zero", "ignore")
_OWN = Conventions()  # of data of one's own
# Share of labelled pixels that an interpolated label needs. With this one, sparse measurements become neither more nor
# fewer: bilinear weights are above it on an area of 1.03 pixels.
_LEAST_WEIGHT = 0.375
# Normalised values `[1, 256, 3]` of the grey levels in each channel.
_NORMALISED = ((np.arange(256, dtype=np.float32)[:, None] / np.float32(255) - MEAN) / STD)[None]


@dataclass(frozen=True)
class Resampling:
    """The interpolation of maps.

    Attributes:
        image: Interpolation of the image.
        labels: Interpolation of labels; "" = the one of their kind.
        distances: Interpolation of distances such as depth; "" = as `labels` says.
        distances_over_scale: True to divide distances by the scale, as if the camera had moved closer.
        fills_holes: True if pixels without a label take part in the interpolation where the conventions of the data
            set say so (`Conventions.interpolates_holes`), False if they never do.
        lines: Lines one pixel wide, such as edges, at another size: "sampled" takes the value of the nearest pixel,
            which makes dots of them at smaller sizes and bars at larger ones; "redrawn" keeps their width.
    """

    image: Interpolation = "cubic"
    labels: Interpolation | Literal[""] = ""
    distances: Interpolation | Literal[""] = ""
    distances_over_scale: bool = False
    fills_holes: bool = True
    lines: Literal["sampled", "redrawn"] = "sampled"

    def mode(self, name: str) -> int:
        """Returns OpenCV's number of the interpolation of a map."""
        if name not in tasks.TASKS:
            return INTERPOLATIONS[self.image]
        kind = _kind(name)
        labels = self.labels or kind.label_interpolation
        return INTERPOLATIONS[(self.distances or labels) if kind.distance else labels]


PLAIN = Resampling()


def flip(sample: Mapping[str, np.ndarray], conventions: Conventions = _OWN) -> Sample:
    """Mirrors every map left to right, and mirrors the values of labels that have a direction.

    Args:
        sample: Maps to mirror.
        conventions: Conventions of the data set.
    """
    out = {name: cv2.flip(x, 1).reshape(x.shape) for name, x in sample.items()}
    return {name: _kind(name).flip(x, conventions) if name in tasks.TASKS else x for name, x in out.items()}


def scale_and_rotate(
    sample: Mapping[str, np.ndarray],
    angle: float,
    scale: float,
    resampling: Resampling = PLAIN,
    border: str = "",
    conventions: Conventions = _OWN,
) -> Sample:
    """Rotates and scales every map about (w / 2, h / 2). The maps keep their size.

    Args:
        sample: Maps to move.
        angle: Angle in degrees, counter-clockwise in the image.
        scale: Scale; values above 1 enlarge.
        resampling: Interpolations, and whether depth is divided by the scale.
        border: Labels outside of the image: "ignore" means none, and "zero" class 0 and background, as in the
            published protocols. Normals and depth have none there either way. "" means that of the conventions. The
            image is black there.
        conventions: Conventions of the data set.

    Raises:
        ValueError: The border is unknown.
    """
    border = border or conventions.border
    if border not in BORDERS:
        raise ValueError(f"unknown border {border!r}; the borders are {', '.join(BORDERS)}")
    out = {}
    for name, x in sample.items():
        if angle == 0 and scale == 1 and x.dtype != np.float64:  # OpenCV rounds the outermost pixels of float64 maps
            out[name] = x
            continue
        height, width = x.shape[:2]
        matrix, outside = cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale), 0.0
        if name in tasks.TASKS:
            x, outside = _kind(name).rotate(x, angle, conventions), _kind(name).void if border == "ignore" else 0

        def warp(array: np.ndarray, mode: int, fill: float, matrix: np.ndarray = matrix) -> np.ndarray:
            size = array.shape[1::-1]
            return cv2.warpAffine(
                array, matrix, size, flags=mode, borderMode=cv2.BORDER_CONSTANT, borderValue=(fill,) * 4
            )

        out[name] = _resample(name, x, resampling, conventions, warp, outside)
    return over_scale(out, scale) if resampling.distances_over_scale else out


def over_scale(sample: Mapping[str, np.ndarray], scale: float) -> Sample:
    """Divides distances such as depth by the scale of the image; other maps stay as they are."""
    return {name: (x / scale).astype(x.dtype) if _is_distance(name) else x for name, x in sample.items()}


def resize(
    sample: Mapping[str, np.ndarray],
    size: tuple[int, int],
    resampling: Resampling = PLAIN,
    conventions: Conventions = _OWN,
) -> Sample:
    """Resizes every map.

    Normals become float32 vectors of unit length. Zero vectors stay zero.

    Args:
        sample: Maps to resize.
        size: Height and width of the result.
        resampling: Interpolations.
        conventions: Conventions of the data set.
    """
    height, width = size

    def change_size(array: np.ndarray, mode: int, fill: float) -> np.ndarray:
        return cv2.resize(array, (width, height), interpolation=mode)

    out = {}
    for name, x in sample.items():
        if x.shape[:2] != (height, width):
            resized = _resample(name, x, resampling, conventions, change_size, 0)
            x = _kind(name).redrawn(x, resized) if resampling.lines == "redrawn" and name in tasks.TASKS else resized
        out[name] = _kind(name).resampled(x) if name in tasks.TASKS else x
    return out


def ignore_regions(sample: Mapping[str, np.ndarray], conventions: Conventions = _OWN) -> Sample:
    """Writes 255 where a label has no value: zero normals, zero depth, and what the conventions call unlabelled."""
    out = {name: _kind(name).mark_ignored(x) if name in tasks.TASKS else x for name, x in sample.items()}
    for name in out.keys() & set(conventions.empty_is_unlabelled):
        if not np.any((out[name] != 0) & (out[name] != IGNORE)):
            out[name] = np.full_like(out[name], IGNORE)
    return out


def as_bytes(image: np.ndarray) -> np.ndarray:
    """Converts an image `[H, W, 3]` with values in 0..255 to uint8.

    Fractions are cut off, as in the published protocol. Values that the cubic interpolation moved out of the range are
    clipped.
    """
    return image if image.dtype == np.uint8 else np.clip(image, 0, 255).astype(np.uint8)


def normalise_image(image: np.ndarray) -> np.ndarray:
    """Converts an image `[H, W, 3]` to uint8 with `as_bytes`, then to float32 normalised with ImageNet statistics."""
    return cv2.LUT(as_bytes(image), _NORMALISED)


def finish(sample: Mapping[str, np.ndarray], normalised: bool, conventions: Conventions = _OWN) -> Sample:
    """Marks ignored regions, and converts the image and the labels to their delivered types.

    Args:
        sample: Maps at the size of the network's input.
        normalised: False to leave the image in uint8, for example if a device does it
            (`mtl_jax.images.normalise`).
        conventions: Conventions of the data set.
    """
    image = normalise_image if normalised else as_bytes
    return {
        name: image(x) if name == "image" else x.astype(_kind(name).dtype, copy=False)
        for name, x in ignore_regions(sample, conventions).items()
    }


def _kind(name: str) -> LabelKind:
    return tasks.get(name).kind


def _is_distance(name: str) -> bool:
    return name in tasks.TASKS and _kind(name).distance


def _resample(
    name: str,
    x: np.ndarray,
    resampling: Resampling,
    conventions: Conventions,
    move: Callable[[np.ndarray, int, float], np.ndarray],
    outside: float,
) -> np.ndarray:
    """Moves a map by `move`, a function (array, OpenCV interpolation, value outside) -> array `[H, W, C]` or `[H, W]`.

    Labels that are interpolated are weighted by where there is one, unless the conventions say otherwise: the value is
    that of the labelled pixels alone.
    """
    mode = resampling.mode(name)
    values = x if mode == cv2.INTER_NEAREST else _as_floating(x)
    fills_holes = resampling.fills_holes and conventions.interpolates_holes
    if name not in tasks.TASKS or mode == cv2.INTER_NEAREST or fills_holes:
        moved = move(values, mode, outside)
        return moved.reshape(*moved.shape[:2], x.shape[2])
    void, known = _kind(name).void, _kind(name).labelled(x)
    weight = move(known.astype(np.float32), mode, 0)[..., None]
    moved = move(np.where(known[..., None], values, 0), mode, 0)
    moved = moved.reshape(*moved.shape[:2], x.shape[2])
    labelled = weight >= _LEAST_WEIGHT
    return np.where(labelled, moved / np.where(labelled, weight, 1), void).astype(moved.dtype)


def _as_floating(x: np.ndarray) -> np.ndarray:
    """Converts integers to float32, so that results of an interpolation are not rounded."""
    return x if np.issubdtype(x.dtype, np.floating) else x.astype(np.float32)
