"""Samples of training and validation: the steps of a recipe, and the conversion to what the network takes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mtl_jax import tasks
from mtl_jax.data import placing, transforms
from mtl_jax.data.augmentation.geometry import Pad
from mtl_jax.data.augmentation.recipe import Draw, Recipe, get_recipe
from mtl_jax.data.augmentation.step import Context, Step
from mtl_jax.data.transforms import Sample
from mtl_jax.labels import Conventions
from mtl_jax.runtime import messages

_OWN = Conventions()  # of data of one's own


def train_transform(
    sample: Mapping[str, np.ndarray],
    drawn: Draw,
    recipe: str | Recipe,
    size: tuple[int, int],
    border: str = "",
    normalised: bool = True,
    conventions: Conventions = _OWN,
) -> Sample:
    """Applies the steps of a recipe, marks ignored regions and normalises, in this order.

    Args:
        sample: Image and labels. Other entries are left out.
        drawn: Random numbers from `draw`.
        recipe: Recipe, or its name.
        size: Height and width of the result.
        border: "zero", "ignore" or "", see `transforms.scale_and_rotate`.
        normalised: False to skip the normalisation, for example if a device does it (`mtl_jax.images.normalise`).
        conventions: Conventions of the data set.

    Returns:
        `image` `[H, W, 3]`, float32 or, without normalisation, uint8; and each label `[H, W, C]` in the `dtype` of its
        kind.

    Raises:
        ValueError: The steps leave another size, or the recipe or the border is unknown.
    """
    recipe = get_recipe(recipe)
    context = Context(size, recipe.resampling, border, conventions)
    maps = {name: x for name, x in sample.items() if name == "image" or name in tasks.TASKS}
    waiting: list[tuple[Step, Any]] = []
    for step, numbers in zip(recipe.steps, drawn, strict=True):
        if step.looks_at:  # the other steps see one map at a time, so that it stays in the cache
            maps, waiting = _each(maps, _chain(waiting, context)), []
            numbers = step.settle(maps, numbers, context)
        waiting.append((step, numbers))
    moved = _chain(waiting, context)
    return _each(maps, lambda one: _finish(moved(one), size, normalised, conventions))


def val_transform(
    sample: Mapping[str, np.ndarray],
    size: tuple[int, int],
    recipe: str | Recipe = "none",
    normalised: bool = True,
    conventions: Conventions = _OWN,
) -> Sample:
    """Resizes or pads, marks ignored regions and normalises, see `train_transform`.

    Args:
        sample: Image and labels. Other entries are left out.
        size: Height and width of the result.
        recipe: Recipe, or its name. Its resampling and its placement are used.
        normalised: False to skip the normalisation.
        conventions: Conventions of the data set.
    """
    recipe = get_recipe(recipe)
    context = Context(size, recipe.resampling, "", conventions)

    def place(one: Sample) -> Sample:
        if recipe.placement == "stretch":
            return transforms.resize(one, size, recipe.resampling, conventions)
        ((height, width, _),) = (x.shape for x in one.values())
        fitted = placing.fitted((height, width), size)
        return Pad().apply(transforms.resize(one, fitted, recipe.resampling, conventions), None, context)

    return _each(sample, lambda one: _finish(place(one), size, normalised, conventions))


def _chain(steps: Sequence[tuple[Step, Any]], context: Context) -> Callable[[Sample], Sample]:
    """Returns the function that applies pairs (step, random numbers) one after the other."""

    def apply(maps: Sample) -> Sample:
        for step, numbers in steps:
            maps = step.apply(maps, numbers, context)
        return maps

    return apply


def _each(sample: Mapping[str, np.ndarray], transform: Callable[[Sample], Sample]) -> Sample:
    """Transforms the image and the labels one after another, so that a map stays in the cache; drops other entries."""
    out: Sample = {}
    for name in ("image", *(name for name in sample if name in tasks.TASKS)):
        out |= transform({name: sample[name]})
    return out


def _finish(maps: Sample, size: tuple[int, int], normalised: bool, conventions: Conventions) -> Sample:
    for name, x in maps.items():
        if x.shape[:2] != size:
            raise ValueError(
                f"the steps of the augmentation recipe leave {messages.size_text(x.shape[:2])} pixels of {name}, "
                f"expected {messages.size_text(size)}; end the recipe with Stretch or with Crop and Pad"
            )
    return transforms.finish(maps, normalised, conventions)
