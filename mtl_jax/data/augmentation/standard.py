"""The recipes of the library. Those of published code are exactly as published where no parameter is given."""

from typing import Literal

from mtl_jax.data.augmentation.colour import ColorJitter, PhotometricDistortion
from mtl_jax.data.augmentation.cutout import AREA, Cutout
from mtl_jax.data.augmentation.geometry import Crop, Flip, Pad, RotateAndScale, Scale, Scales, Stretch
from mtl_jax.data.augmentation.recipe import Recipe, register_recipe
from mtl_jax.data.augmentation.step import Step
from mtl_jax.data.transforms import Resampling
from mtl_jax.notation import Interval

_UNSCALED = Interval(1.0, 1.0)
_AROUND_ONE = Interval(0.75, 1.25)
_HALF_TO_DOUBLE = Interval(0.5, 2.0)
_SIZES = {"nyud": (448, 576), "pascal": (512, 512)}


@register_recipe
def astmt(*, flip: float = 0.5, rotation: float = 20.0, scale: Scales = _AROUND_ONE) -> Recipe:
    """Flips, rotates by up to 20 degrees and scales about the centre (ASTMT, arXiv 1904.08918).

    Args:
        flip: Probability of a flip.
        rotation: Largest angle in degrees.
        scale: Interval from which the scale is drawn, or several scales to choose from.
    """
    return Recipe((Flip(flip), RotateAndScale(rotation, scale), Stretch()), Resampling(distances="linear"))


@register_recipe
def survey(*, flip: float = 0.5, scale: Scales = (1.0, 1.2, 1.5)) -> Recipe:
    """Flips and enlarges about the centre, and divides depth by the scale (the survey, arXiv 2004.13379).

    Args:
        flip: Probability of a flip.
        scale: Interval from which the scale is drawn, or several scales to choose from.
    """
    resampling = Resampling(distances="nearest", distances_over_scale=True)
    return Recipe((Flip(flip), RotateAndScale(0.0, scale), Stretch()), resampling)


@register_recipe
def none() -> Recipe:
    """Leaves the images as they are, apart from their size."""
    return Recipe((Flip(0.0), RotateAndScale(), Stretch()), Resampling(distances="linear"))


@register_recipe
def invpt(
    *,
    scale: Scales = _HALF_TO_DOUBLE,
    max_class: float = 0.75,
    flip: float = 0.5,
    photometric: bool = True,
) -> Recipe:
    """Scales, crops, flips, distorts colours and pads (ATRC, arXiv 2104.13874; InvPT, arXiv 2203.07997; TaskPrompter).

    Depth is divided by the scale. All labels are those of the nearest pixels. The network's input is 448 x 576 pixels
    for NYUD and 512 x 512 for PASCAL. Evaluation pads the images to that size; images that are larger are made smaller
    first. What is padded has no label.

    Args:
        scale: Interval from which the scale is drawn, or several scales to choose from; 1 is the size at which
            evaluation sees the image.
        max_class: Share of the most frequent class of semantic segmentation from which on a crop is rejected.
        flip: Probability of a flip.
        photometric: True to distort brightness, contrast, saturation and hue.
    """
    colours = (PhotometricDistortion(),) if photometric else ()
    resampling = Resampling("linear", "nearest", distances_over_scale=True, fills_holes=False)
    return Recipe((Scale(scale), Crop(max_class), Flip(flip), *colours, Pad()), resampling, "pad", _SIZES)


@register_recipe
def custom(
    *,
    rotation: float = 0.0,
    scale: Scales = _UNSCALED,
    max_class: float = 0.75,
    flip: float = 0.0,
    photometric: bool = False,
    jitter: tuple[float, ...] | None = None,
    cutout: float = 0.0,
    cutout_area: Interval = AREA,
    cutout_labels: Literal["ignore", "keep"] = "ignore",
    depth_over_scale: bool = True,
) -> Recipe:
    """Applies the steps that its parameters switch on, in their order; without any it only crops and pads.

    The padding comes before the cutout. Labels are resampled as their kind says, normals keep unit length, and edges
    are redrawn at the new size, so that they stay thin.

    Args:
        rotation: Largest angle in degrees.
        scale: Interval from which the scale is drawn, or several scales to choose from; 1 is the size at which
            evaluation sees the image.
        max_class: Share of the most frequent class of semantic segmentation from which on a crop is rejected.
        flip: Probability of a flip.
        photometric: True to distort brightness, contrast, saturation and hue as mmsegmentation does.
        jitter: Brightness+contrast+saturation+hue, the values of torchvision's ColorJitter.
        cutout: Probability of a rectangle that is hidden.
        cutout_area: Part of the image that the rectangle covers.
        cutout_labels: "ignore" removes the labels of the hidden pixels, "keep" keeps them.
        depth_over_scale: True to divide depth by the scale.
    """
    if jitter is not None and len(jitter) != 4:
        raise ValueError(
            f"jitter has {len(jitter)} numbers; it has four, brightness+contrast+saturation+hue, as in 0.4+0.4+0.4+0.1"
        )
    steps: list[Step] = [RotateAndScale(rotation)] if rotation else []
    steps += [Scale(scale), Crop(max_class), Flip(flip)]
    steps += [PhotometricDistortion()] if photometric else []
    steps += [ColorJitter(*jitter)] if jitter is not None else []
    steps += [Pad()]
    steps += [Cutout(cutout, cutout_area, cutout_labels)] if cutout else []
    resampling = Resampling("linear", distances_over_scale=depth_over_scale, fills_holes=False, lines="redrawn")
    return Recipe(tuple(steps), resampling, "pad")
