"""Recipes of augmentation, and the table of recipes by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from mtl_jax import notation
from mtl_jax.data.augmentation.step import Step
from mtl_jax.data.placing import Placement
from mtl_jax.data.transforms import PLAIN, Resampling
from mtl_jax.registry import Registry

# The random numbers of the augmentation of one sample: what each step of the recipe has drawn.
Draw = tuple[Any, ...]


@dataclass(frozen=True)
class Recipe:
    """An augmentation: steps that training samples pass one after the other.

    Attributes:
        steps: The steps. After the last one, the maps have the size of the network's input.
        resampling: How steps resample maps. Validation images are resampled in the same way.
        placement: How validation images are brought to the size of the network's input, see `mtl_jax.data.placing`.
        sizes: {data set: (height, width)} of network inputs where the configuration names no `data.image_size`; other
            data sets keep their own.
    """

    steps: tuple[Step, ...]
    resampling: Resampling = PLAIN
    placement: Placement = "stretch"
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def looks_at(self) -> tuple[str, ...]:
        """Tasks whose labels the steps look at, whether the tasks are learned or not."""
        return tuple(dict.fromkeys(task for step in self.steps for task in step.looks_at))

    def note(self, drawn: Draw) -> str:
        """Returns what happens to a sample in a few words, for contact sheets."""
        return ", ".join(filter(None, (step.note(each) for step, each in zip(self.steps, drawn, strict=True))))


Function = TypeVar("Function", bound=Callable[..., Recipe])

RECIPES: Registry[Callable[..., Recipe]] = Registry(
    "augmentation recipe", "recipes", "mtl_jax.data.augmentation.register_recipe"
)


def register_recipe(function: Function) -> Function:
    """Adds a recipe to `RECIPES` under the name of its function, and returns the function.

    A decorator, inside this package as well as outside of it:

        @augmentation.register_recipe
        def crops(*, scale: Interval = Interval(0.5, 2.0), flip: float = 0.5) -> augmentation.Recipe:
            return augmentation.Recipe((augmentation.Scale(scale), augmentation.Crop(), ...))

    makes `augmentation.get_recipe("crops:scale=0.8-1.5")` and `--data.augmentation=crops:scale=0.8-1.5` possible.

    Args:
        function: Function with keyword parameters only, each with a type annotation and a default, that returns a
            `Recipe`.

    Raises:
        ValueError: Another recipe has this name.
    """
    RECIPES.register(function.__name__, function)
    return function


def get_recipe(recipe: str | Recipe) -> Recipe:
    """Returns the recipe of a name, NAME or NAME:PARAMETER=VALUE,PARAMETER=VALUE. A `Recipe` is returned as it is.

    Raises:
        ValueError: The recipe or a parameter is unknown, or a value has the wrong type or lies outside of its range.
    """
    if isinstance(recipe, Recipe):
        return recipe
    name, given = notation.split(recipe)
    function = RECIPES[name]
    what = f"the augmentation recipe {name}"
    arguments = notation.arguments(given, function, what)
    try:
        return function(**arguments)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def draw(recipe: str | Recipe, rng: np.random.Generator) -> Draw:
    """Draws the random numbers of one sample: those of the recipe's steps, in their order."""
    return tuple(step.draw(rng) for step in get_recipe(recipe).steps)
