"""Training and validation transforms on NumPy arrays (OpenCV), one draw for all maps of a sample.

A sample is a dict with `image` `[H, W, 3]` and one label `[H, W, C]` for each task (`mtl_jax.data.records`). Labels are
moved as float32, except float64 normals, which stay so until the end.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from mtl_jax import tasks

Sample = dict[str, np.ndarray]

MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # ImageNet, RGB
STD = np.array([0.229, 0.224, 0.225], np.float32)

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
        height, width = x.shape[:2]
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale)
        if name == "normals":
            x = _rotate_in_plane(x, angle)
        fill = tasks.IGNORE if border == "ignore" and _is_class_map(name) else 0
        warped = cv2.warpAffine(
            x,
            matrix,
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
    """Resizes every map to `size` (height, width); normals are brought to unit length, zero vectors stay zero."""
    recipe = get_recipe(recipe)
    height, width = size
    out = {}
    for name, x in sample.items():
        if x.shape[:2] != (height, width):
            x = cv2.resize(x, (width, height), interpolation=_mode(name, recipe)).reshape(height, width, x.shape[2])
        out[name] = x
    if "normals" in out:
        norm = np.sqrt(np.einsum("hwc,hwc->hw", out["normals"], out["normals"]))[..., None]
        out["normals"] = out["normals"] / (norm + out["normals"].dtype.type(_NORM_EPS))
    return out


def ignore_regions(sample: Mapping[str, np.ndarray]) -> Sample:
    """Marks with 255 what holds no label: zero normals, zero depth, and human parts where the image has none."""
    return {name: _IGNORED[name](x) if name in _IGNORED else x for name, x in sample.items()}


def normalise_image(image: np.ndarray) -> np.ndarray:
    """[H, W, 3] in 0..255 -> float32 with ImageNet statistics.

    Fractions are cut off, as in the published protocol; overshoots of the cubic interpolation saturate.
    """
    image = np.clip(image, 0, 255).astype(np.uint8)
    return cv2.LUT(image, _NORMALISED)


def train_transform(
    sample: Mapping[str, np.ndarray], drawn: Draw, recipe: str | Recipe, size: tuple[int, int], border: str = "zero"
) -> Sample:
    """Flip, scale and rotation, resize, ignored regions, normalisation.

    Args:
        sample: `image` and labels.
        drawn: from `draw`.
        recipe: name or `Recipe`.
        size: height and width of what is returned.
        border: "zero" or "ignore", see `scale_and_rotate`.

    Returns:
        `image` float32 [H, W, 3], and each label [H, W, C] in the task's `label_dtype`.
    """
    recipe = get_recipe(recipe)
    maps = _working_copy(sample)
    if drawn.flip:
        maps = flip(maps)
    if recipe.warps or drawn.angle != 0 or drawn.scale != 1:
        maps = scale_and_rotate(maps, drawn.angle, drawn.scale, recipe, border)
    return _finish(maps, recipe, size)


def val_transform(sample: Mapping[str, np.ndarray], size: tuple[int, int], recipe: str | Recipe = "none") -> Sample:
    """Resize, ignored regions and normalisation; of the recipe only the interpolation of depth is used."""
    return _finish(_working_copy(sample), get_recipe(recipe), size)


def _finish(maps: Sample, recipe: Recipe, size: tuple[int, int]) -> Sample:
    maps = ignore_regions(resize(maps, size, recipe))
    out = {name: x.astype(tasks.get(name).label_dtype, copy=False) for name, x in maps.items() if name != "image"}
    return {"image": normalise_image(maps["image"]), **out}


def _working_copy(sample: Mapping[str, np.ndarray]) -> Sample:
    """The image and labels, without other entries, as float32 (float64 normals stay)."""
    out = {}
    for name, x in sample.items():
        if name == "image" or name in tasks.TASKS:
            keep = name == "normals" and x.dtype == np.float64
            out[name] = x if keep else x.astype(np.float32, copy=False)
    return out


def _mode(name: str, recipe: Recipe) -> int:
    if name == "image":
        return _CV2_MODES["cubic"]
    return _CV2_MODES[recipe.depth_interpolation if name == "depth" else tasks.get(name).label_interpolation]


def _is_class_map(name: str) -> bool:
    return name in tasks.TASKS and np.issubdtype(np.dtype(tasks.get(name).label_dtype), np.integer)


def _rotate_in_plane(normals: np.ndarray, angle: float) -> np.ndarray:
    """Turns (x, y) as the image turns; right for normals whose x points right and y down."""
    radians = np.deg2rad(angle)
    cos, sin = np.cos(radians), np.sin(radians)
    x, y = normals[..., 0], normals[..., 1]
    rotated = normals.copy()
    rotated[..., 0] = x * cos + y * sin
    rotated[..., 1] = y * cos - x * sin
    return rotated


def _ignore_normals(x: np.ndarray) -> np.ndarray:
    zero = (x[..., 0] == 0) & (x[..., 1] == 0) & (x[..., 2] == 0)
    return np.where(zero[..., None], x.dtype.type(tasks.IGNORE), x)


def _ignore_depth(x: np.ndarray) -> np.ndarray:
    return np.where(x == 0, x.dtype.type(tasks.IGNORE), x)


def _ignore_human_parts(x: np.ndarray) -> np.ndarray:
    if np.any((x != 0) & (x != tasks.IGNORE)):
        return x
    return np.full_like(x, tasks.IGNORE)


_IGNORED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "normals": _ignore_normals,
    "depth": _ignore_depth,
    "human_parts": _ignore_human_parts,
}
