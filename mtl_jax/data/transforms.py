"""Training and validation transforms of NumPy arrays with OpenCV. All maps of a sample share the same random numbers.

A sample is a dict with `image` `[H, W, 3]` and a label `[H, W, C]` for each labelled task (`mtl_jax.data.records`).
Maps keep their type through flip, rotation and resizing, except for interpolated integers, which become float32.

The transforms use OpenCV even where NumPy is more familiar, because OpenCV is several times as fast for maps with three
channels in the last axis.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from mtl_jax import tasks
from mtl_jax.images import MEAN, STD
from mtl_jax.labels import IGNORE, INTERPOLATIONS, Conventions, LabelKind

Sample = dict[str, np.ndarray]

BORDERS = ("zero", "ignore")
_OWN = Conventions()  # of data of one's own
# Share of labelled pixels that an interpolated label needs. With this one, sparse measurements become neither more nor
# fewer: bilinear weights are above it on an area of 1.03 pixels.
_LEAST_WEIGHT = 0.375
# Normalised values `[1, 256, 3]` of the grey levels in each channel.
_NORMALISED = ((np.arange(256, dtype=np.float32)[:, None] / np.float32(255) - MEAN) / STD)[None]


@dataclass(frozen=True)
class Recipe:
    """An augmentation protocol.

    Attributes:
        flip: Probability of a horizontal flip.
        rotation: Largest angle in degrees. The angle is drawn from [-rotation, rotation].
        scale_range: Interval from which the scale is drawn if there are no `scale_choices`.
        scale_choices: Scales from which one is drawn.
        depth_interpolation: Interpolation of depth, in place of the interpolation in the task table.
        depth_over_scale: True to divide depth by the scale, as if the camera had moved closer.
    """

    flip: float = 0.0
    rotation: float = 0.0
    scale_range: tuple[float, float] = (1.0, 1.0)
    scale_choices: tuple[float, ...] = ()
    depth_interpolation: str = "linear"
    depth_over_scale: bool = False

    @property
    def warps(self) -> bool:
        """True if the recipe can rotate or scale."""
        return self.rotation != 0 or self.scale_range != (1.0, 1.0) or bool(self.scale_choices)


RECIPES: dict[str, Recipe] = {
    "astmt": Recipe(flip=0.5, rotation=20.0, scale_range=(0.75, 1.25)),
    "survey": Recipe(flip=0.5, scale_choices=(1.0, 1.2, 1.5), depth_interpolation="nearest", depth_over_scale=True),
    "none": Recipe(),
}


@dataclass(frozen=True)
class Draw:
    """Random numbers of the augmentation of one sample.

    Attributes:
        flip: True if the sample is flipped.
        angle: Angle of the rotation in degrees, counter-clockwise in the image.
        scale: Scale; values above 1 enlarge.
    """

    flip: bool = False
    angle: float = 0.0
    scale: float = 1.0


def get_recipe(recipe: str | Recipe) -> Recipe:
    """Returns the recipe of a name. A `Recipe` is returned as it is.

    Raises:
        ValueError: The recipe is unknown; the message lists the known ones.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        raise ValueError(f"unknown augmentation recipe {recipe!r}; the recipes are {', '.join(RECIPES)}")
    return RECIPES[recipe]


def draw(recipe: str | Recipe, rng: np.random.Generator) -> Draw:
    """Draws flip, angle and scale. Every recipe draws all three, in this order."""
    recipe = get_recipe(recipe)
    flipped = bool(rng.random() < recipe.flip)
    angle = float(rng.uniform(-recipe.rotation, recipe.rotation))
    if recipe.scale_choices:
        scale = recipe.scale_choices[int(rng.integers(len(recipe.scale_choices)))]
    else:
        scale = float(rng.uniform(*recipe.scale_range))
    return Draw(flipped, angle, scale)


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
    recipe: str | Recipe,
    border: str = "",
    conventions: Conventions = _OWN,
) -> Sample:
    """Rotates and scales every map about (w / 2, h / 2). The maps keep their size.

    Args:
        sample: Maps to move.
        angle: Angle in degrees, counter-clockwise in the image.
        scale: Scale; values above 1 enlarge.
        recipe: Recipe, or its name. It defines the interpolation of depth and the division of depth by the scale.
        border: Labels outside of the image: "ignore" means none, and "zero" class 0 and background, as in the
            published protocols. Normals and depth have none there either way. "" means that of the conventions. The
            image is black there.
        conventions: Conventions of the data set.

    Raises:
        ValueError: The border or the recipe is unknown.
    """
    recipe, border = get_recipe(recipe), border or conventions.border
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

        out[name] = _resample(name, x, recipe, conventions, warp, outside)
    if recipe.depth_over_scale:
        out |= {name: (x / scale).astype(x.dtype) for name, x in out.items() if _is_distance(name)}
    return out


def resize(
    sample: Mapping[str, np.ndarray],
    size: tuple[int, int],
    recipe: str | Recipe,
    conventions: Conventions = _OWN,
) -> Sample:
    """Resizes every map.

    Normals become float32 vectors of unit length, because this is their last resampling. Zero vectors stay zero.

    Args:
        sample: Maps to resize.
        size: Height and width of the result.
        recipe: Recipe, or its name. It defines the interpolation of depth.
        conventions: Conventions of the data set.
    """
    recipe = get_recipe(recipe)
    height, width = size

    def change_size(array: np.ndarray, mode: int, fill: float) -> np.ndarray:
        return cv2.resize(array, (width, height), interpolation=mode)

    out = {}
    for name, x in sample.items():
        if x.shape[:2] != (height, width):
            x = _resample(name, x, recipe, conventions, change_size, 0)
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


def train_transform(
    sample: Mapping[str, np.ndarray],
    drawn: Draw,
    recipe: str | Recipe,
    size: tuple[int, int],
    border: str = "",
    normalised: bool = True,
    conventions: Conventions = _OWN,
) -> Sample:
    """Applies flip, rotation and scale, resizes, marks ignored regions and normalises, in this order.

    Args:
        sample: Image and labels. Other entries are left out.
        drawn: Random numbers from `draw`.
        recipe: Recipe, or its name.
        size: Height and width of the result.
        border: "zero", "ignore" or "", see `scale_and_rotate`.
        normalised: False to skip the normalisation, for example if a device does it (`mtl_jax.images.normalise`).
        conventions: Conventions of the data set.

    Returns:
        `image` `[H, W, 3]`, float32 or, without normalisation, uint8; and each label `[H, W, C]` in the `dtype` of its
        kind.
    """
    recipe = get_recipe(recipe)

    def move(one: Sample) -> Sample:
        one = flip(one, conventions) if drawn.flip else one
        warps = recipe.warps or drawn.angle != 0 or drawn.scale != 1
        return scale_and_rotate(one, drawn.angle, drawn.scale, recipe, border, conventions) if warps else one

    return _each(sample, lambda one: _finish(move(one), recipe, size, normalised, conventions))


def val_transform(
    sample: Mapping[str, np.ndarray],
    size: tuple[int, int],
    recipe: str | Recipe = "none",
    normalised: bool = True,
    conventions: Conventions = _OWN,
) -> Sample:
    """Resizes, marks ignored regions and normalises, see `train_transform`.

    Args:
        sample: Image and labels. Other entries are left out.
        size: Height and width of the result.
        recipe: Recipe, or its name. Only its interpolation of depth is used.
        normalised: False to skip the normalisation.
        conventions: Conventions of the data set.
    """
    recipe = get_recipe(recipe)
    return _each(sample, lambda one: _finish(one, recipe, size, normalised, conventions))


def _each(sample: Mapping[str, np.ndarray], transform: Callable[[Sample], Sample]) -> Sample:
    """Transforms the image and the labels one after another, so that a map stays in the cache; drops other entries."""
    out: Sample = {}
    for name in ("image", *(name for name in sample if name in tasks.TASKS)):
        out |= transform({name: sample[name]})
    return out


def _finish(maps: Sample, recipe: Recipe, size: tuple[int, int], normalised: bool, conventions: Conventions) -> Sample:
    image = normalise_image if normalised else as_bytes
    return {
        name: image(x) if name == "image" else x.astype(_kind(name).dtype, copy=False)
        for name, x in ignore_regions(resize(maps, size, recipe, conventions), conventions).items()
    }


def _kind(name: str) -> LabelKind:
    return tasks.get(name).kind


def _is_distance(name: str) -> bool:
    return name in tasks.TASKS and _kind(name).distance


def _mode(name: str, recipe: Recipe) -> int:
    if name == "image":
        return INTERPOLATIONS["cubic"]
    return INTERPOLATIONS[recipe.depth_interpolation if _is_distance(name) else _kind(name).label_interpolation]


def _resample(
    name: str,
    x: np.ndarray,
    recipe: Recipe,
    conventions: Conventions,
    move: Callable[[np.ndarray, int, float], np.ndarray],
    outside: float,
) -> np.ndarray:
    """Moves a map by `move`, a function (array, OpenCV interpolation, value outside) -> array `[H, W, C]` or `[H, W]`.

    Labels that are interpolated are weighted by where there is one, unless the conventions say otherwise: the value is
    that of the labelled pixels alone.
    """
    mode, values = _mode(name, recipe), _resampled_type(name, x, recipe)
    if name not in tasks.TASKS or mode == cv2.INTER_NEAREST or conventions.interpolates_holes:
        moved = move(values, mode, outside)
        return moved.reshape(*moved.shape[:2], x.shape[2])
    void, known = _kind(name).void, _kind(name).labelled(x)
    weight = move(known.astype(np.float32), mode, 0)[..., None]
    moved = move(np.where(known[..., None], values, 0), mode, 0)
    moved = moved.reshape(*moved.shape[:2], x.shape[2])
    labelled = weight >= _LEAST_WEIGHT
    return np.where(labelled, moved / np.where(labelled, weight, 1), void).astype(moved.dtype)


def _resampled_type(name: str, x: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Converts integers that are interpolated to float32, so that the results are not rounded."""
    if np.issubdtype(x.dtype, np.floating) or _mode(name, recipe) == cv2.INTER_NEAREST:
        return x
    return x.astype(np.float32)
