"""Training and validation transforms on NumPy arrays (OpenCV), one draw for all maps of a sample.

A sample is a dict with `image` `[H, W, 3]` and one label `[H, W, C]` for each task there is (`mtl_jax.data.records`).
Maps keep their type while they are moved, but for integers that are interpolated, which become float32.

Whole maps go through OpenCV rather than NumPy also where NumPy would be more familiar: with three channels last it is
several times as fast.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from mtl_jax import tasks
from mtl_jax.images import MEAN, STD

Sample = dict[str, np.ndarray]

_NORM_EPS = np.finfo(np.float32).eps  # shortens the faint vectors cubic resampling leaves around invalid regions
BORDERS = ("zero", "ignore")
_NORMALISED = ((np.arange(256, dtype=np.float32)[:, None] / np.float32(255) - MEAN) / STD)[None]  # by grey level
_CV2_MODES = {"nearest": cv2.INTER_NEAREST, "linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}


@dataclass(frozen=True)
class Recipe:
    """An augmentation protocol.

    Attributes:
        flip: probability of a horizontal flip.
        rotation: the angle is drawn from [-rotation, rotation] degrees.
        scale_range: the scale is drawn from this interval ...
        scale_choices: ... or is one of these, when given.
        depth_interpolation: overrides the row of the task table.
        depth_over_scale: divide depth by the scale, as if the camera had moved closer.
    """

    flip: float = 0.0
    rotation: float = 0.0
    scale_range: tuple[float, float] = (1.0, 1.0)
    scale_choices: tuple[float, ...] = ()
    depth_interpolation: str = "linear"
    depth_over_scale: bool = False

    @property
    def warps(self) -> bool:
        """Whether any draw can rotate or scale."""
        return self.rotation != 0 or self.scale_range != (1.0, 1.0) or bool(self.scale_choices)


RECIPES: dict[str, Recipe] = {
    "astmt": Recipe(flip=0.5, rotation=20.0, scale_range=(0.75, 1.25)),
    "survey": Recipe(flip=0.5, scale_choices=(1.0, 1.2, 1.5), depth_interpolation="nearest", depth_over_scale=True),
    "none": Recipe(),
}


@dataclass(frozen=True)
class Draw:
    """What one sample undergoes: flip, rotation in degrees (counter-clockwise in the image) and scale."""

    flip: bool = False
    angle: float = 0.0
    scale: float = 1.0


def get_recipe(recipe: str | Recipe) -> Recipe:
    """A recipe by name; a `Recipe` is returned as it is.

    Raises:
        ValueError: no such recipe; the message lists those there are.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        raise ValueError(f"unknown augmentation recipe {recipe!r}; the recipes are {', '.join(RECIPES)}")
    return RECIPES[recipe]


def draw(recipe: str | Recipe, rng: np.random.Generator) -> Draw:
    """Draws flip, angle and scale, always in this order and always all three."""
    recipe = get_recipe(recipe)
    flipped = bool(rng.random() < recipe.flip)
    angle = float(rng.uniform(-recipe.rotation, recipe.rotation))
    if recipe.scale_choices:
        scale = recipe.scale_choices[int(rng.integers(len(recipe.scale_choices)))]
    else:
        scale = float(rng.uniform(*recipe.scale_range))
    return Draw(flipped, angle, scale)


def flip(sample: Mapping[str, np.ndarray]) -> Sample:
    """Mirrors every map left to right and negates the normals' x."""
    out = {name: cv2.flip(x, 1).reshape(x.shape) for name, x in sample.items()}
    if "normals" in out:
        out["normals"][..., 0] *= -1
    return out


def scale_and_rotate(
    sample: Mapping[str, np.ndarray], angle: float, scale: float, recipe: str | Recipe, border: str = "zero"
) -> Sample:
    """Rotates and scales every map about (w / 2, h / 2), with the maps' size kept.

    Args:
        sample: the maps.
        angle: degrees, counter-clockwise in the image.
        scale: above 1 enlarges.
        recipe: says how depth is resampled and whether it is divided by the scale.
        border: what class labels (`semseg`, `human_parts`) become outside the image: "zero", class 0 as in the
            published protocol, or "ignore", the ignored value 255. The other labels are zero there, which later makes
            normals and depth ignored; the image is black.
    """
    recipe = get_recipe(recipe)
    if border not in BORDERS:
        raise ValueError(f"unknown border {border!r}; the borders are {', '.join(BORDERS)}")
    out = {}
    for name, x in sample.items():
        if angle == 0 and scale == 1 and x.dtype != np.float64:  # of float64 maps OpenCV rounds the outermost pixels
            out[name] = x
            continue
        height, width = x.shape[:2]
        if name == "normals":
            x = _rotate_in_plane(x, angle)
        fill = tasks.IGNORE if border == "ignore" and _is_class_map(name) else 0
        warped = cv2.warpAffine(
            _resampled_type(name, x, recipe),
            cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale),
            (width, height),
            flags=_mode(name, recipe),
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(fill,) * 4,
        )
        out[name] = warped.reshape(x.shape)
    if "depth" in out and recipe.depth_over_scale:
        out["depth"] = (out["depth"] / scale).astype(out["depth"].dtype)
    return out


def resize(sample: Mapping[str, np.ndarray], size: tuple[int, int], recipe: str | Recipe) -> Sample:
    """Resizes every map to `size` (height, width).

    Normals are brought to unit length, in float32 as their resampling ends here; zero vectors stay zero.
    """
    recipe = get_recipe(recipe)
    height, width = size
    out = {}
    for name, x in sample.items():
        if x.shape[:2] != (height, width):
            resized = cv2.resize(_resampled_type(name, x, recipe), (width, height), interpolation=_mode(name, recipe))
            x = resized.reshape(height, width, x.shape[2])
        out[name] = _unit_length(x) if name == "normals" else x
    return out


def ignore_regions(sample: Mapping[str, np.ndarray]) -> Sample:
    """Marks with 255 what holds no label: zero normals, zero depth, and human parts where the image has none."""
    return {name: _IGNORED[name](x) if name in _IGNORED else x for name, x in sample.items()}


def as_bytes(image: np.ndarray) -> np.ndarray:
    """[H, W, 3] in 0..255 -> uint8.

    Fractions are cut off, as in the published protocol; overshoots of the cubic interpolation saturate.
    """
    return image if image.dtype == np.uint8 else np.clip(image, 0, 255).astype(np.uint8)


def normalise_image(image: np.ndarray) -> np.ndarray:
    """[H, W, 3] in 0..255 -> float32 with ImageNet statistics, of what `as_bytes` makes of it."""
    return cv2.LUT(as_bytes(image), _NORMALISED)


def train_transform(
    sample: Mapping[str, np.ndarray],
    drawn: Draw,
    recipe: str | Recipe,
    size: tuple[int, int],
    border: str = "zero",
    normalised: bool = True,
) -> Sample:
    """Flip, scale and rotation, resize, ignored regions, normalisation.

    Args:
        sample: `image` and labels.
        drawn: from `draw`.
        recipe: name or `Recipe`.
        size: height and width of what is returned.
        border: "zero" or "ignore", see `scale_and_rotate`.
        normalised: False leaves the normalisation, for example to a device (`mtl_jax.images.normalise`).

    Returns:
        `image` [H, W, 3], float32 or without normalisation uint8, and each label [H, W, C] in the task's `label_dtype`.
    """
    recipe = get_recipe(recipe)

    def move(one: Sample) -> Sample:
        one = flip(one) if drawn.flip else one
        warps = recipe.warps or drawn.angle != 0 or drawn.scale != 1
        return scale_and_rotate(one, drawn.angle, drawn.scale, recipe, border) if warps else one

    return _each(sample, lambda one: _finish(move(one), recipe, size, normalised))


def val_transform(
    sample: Mapping[str, np.ndarray], size: tuple[int, int], recipe: str | Recipe = "none", normalised: bool = True
) -> Sample:
    """Resize, ignored regions and normalisation, see `train_transform`; only depth's interpolation is the recipe's."""
    recipe = get_recipe(recipe)
    return _each(sample, lambda one: _finish(one, recipe, size, normalised))


def _each(sample: Mapping[str, np.ndarray], transform: Callable[[Sample], Sample]) -> Sample:
    """Transforms the image and labels, one after another: a map stays in the cache. Other entries are left out."""
    out: Sample = {}
    for name in ("image", *(name for name in sample if name in tasks.TASKS)):
        out |= transform({name: sample[name]})
    return out


def _finish(maps: Sample, recipe: Recipe, size: tuple[int, int], normalised: bool) -> Sample:
    image = normalise_image if normalised else as_bytes
    return {
        name: image(x) if name == "image" else x.astype(tasks.get(name).label_dtype, copy=False)
        for name, x in ignore_regions(resize(maps, size, recipe)).items()
    }


def _mode(name: str, recipe: Recipe) -> int:
    if name == "image":
        return _CV2_MODES["cubic"]
    return _CV2_MODES[recipe.depth_interpolation if name == "depth" else tasks.get(name).label_interpolation]


def _resampled_type(name: str, x: np.ndarray, recipe: Recipe) -> np.ndarray:
    """float32 instead of integers, between which interpolation would round; the nearest value is right in any type."""
    if np.issubdtype(x.dtype, np.floating) or _mode(name, recipe) == cv2.INTER_NEAREST:
        return x
    return x.astype(np.float32)


def _is_class_map(name: str) -> bool:
    return name in tasks.TASKS and np.issubdtype(np.dtype(tasks.get(name).label_dtype), np.integer)


def _rotate_in_plane(normals: np.ndarray, angle: float) -> np.ndarray:
    """Turns (x, y) as the image turns; right for normals whose x points right and y down."""
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    return cv2.transform(normals, np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]))


def _unit_length(normals: np.ndarray) -> np.ndarray:
    normals = normals.astype(np.float32, copy=False)
    squared = cv2.transform(cv2.multiply(normals, normals), np.ones((1, 3), np.float32))
    norm = cv2.sqrt(squared) + _NORM_EPS
    return cv2.divide(normals, cv2.merge((norm, norm, norm)))


def _ignore_zero(x: np.ndarray) -> np.ndarray:
    """255 in all channels where all are zero."""
    zero = cv2.inRange(x, (0,) * 4, (0,) * 4)
    return cv2.copyTo(x, cv2.bitwise_not(zero), np.full_like(x, tasks.IGNORE)).reshape(x.shape)


def _ignore_human_parts(x: np.ndarray) -> np.ndarray:
    if np.any((x != 0) & (x != tasks.IGNORE)):
        return x
    return np.full_like(x, tasks.IGNORE)


_IGNORED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "normals": _ignore_zero,
    "depth": _ignore_zero,
    "human_parts": _ignore_human_parts,
}
