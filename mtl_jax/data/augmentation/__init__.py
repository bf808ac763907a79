"""Augmentation of training samples: recipes that are composed of steps, one file for each group of steps.

`register_recipe` adds a recipe. The steps move all maps of a sample by the same random numbers.
"""

from mtl_jax.data.augmentation.colour import ColorJitter, PhotometricDistortion
from mtl_jax.data.augmentation.cutout import Cutout
from mtl_jax.data.augmentation.geometry import Crop, Flip, Pad, RotateAndScale, Scale, Stretch
from mtl_jax.data.augmentation.recipe import RECIPES, Draw, Recipe, draw, get_recipe, register_recipe
from mtl_jax.data.augmentation.standard import astmt, custom, invpt, none, survey
from mtl_jax.data.augmentation.step import Context, Step
from mtl_jax.data.augmentation.transform import train_transform, val_transform

__all__ = [
    "RECIPES",
    "ColorJitter",
    "Context",
    "Crop",
    "Cutout",
    "Draw",
    "Flip",
    "Pad",
    "PhotometricDistortion",
    "Recipe",
    "RotateAndScale",
    "Scale",
    "Step",
    "Stretch",
    "astmt",
    "custom",
    "draw",
    "get_recipe",
    "invpt",
    "none",
    "register_recipe",
    "survey",
    "train_transform",
    "val_transform",
]
