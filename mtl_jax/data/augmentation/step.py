"""The interface of the steps of a recipe."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtl_jax.data.transforms import Resampling, Sample
from mtl_jax.labels import Conventions


@dataclass(frozen=True)
class Context:
    """The facts that steps get besides the maps.

    Attributes:
        size: Height and width of the network's input.
        resampling: How the recipe resamples maps.
        border: Labels outside of a rotated image, see `transforms.scale_and_rotate`.
        conventions: Conventions of the data set.
    """

    size: tuple[int, int]
    resampling: Resampling
    border: str
    conventions: Conventions


class Step(ABC):
    """One step of a recipe. Subclasses are frozen dataclasses, whose fields are the parameters of the step.

    `draw` runs in the main process and sees no image. It draws the same number of random numbers every time, so the
    numbers of an image depend on the seed and its position alone, and not on other images or the worker processes.
    """

    @property
    def looks_at(self) -> tuple[str, ...]:
        """Tasks whose labels `settle` looks at."""
        return ()

    def draw(self, rng: np.random.Generator) -> Any:
        """Draws the random numbers of one sample; None for a step without chance."""
        return None

    def settle(self, sample: Mapping[str, np.ndarray], drawn: Any, context: Context) -> Any:
        """Returns the drawn numbers after a look at the whole sample. It is called where the step `looks_at` labels.

        Args:
            sample: The image, and the labels that the sample has, as the steps before have left them.
            drawn: What `draw` returned.
            context: What the steps know besides the maps.
        """
        return drawn

    @abstractmethod
    def apply(self, maps: Mapping[str, np.ndarray], drawn: Any, context: Context) -> Sample:
        """Returns the maps, of the same sample and of one size, after the step. It does not change its arguments.

        Args:
            maps: Some or all maps of the sample.
            drawn: What `draw` returned, or `settle`.
            context: What the steps know besides the maps.
        """

    def note(self, drawn: Any) -> str:
        """Returns what happens to a sample in a few words, for contact sheets; "" where nothing happens."""
        return ""


def check_probability(name: str, value: float) -> None:
    """Checks a probability.

    Raises:
        ValueError: The value lies outside of 0 to 1.
    """
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value:g}; a probability is from 0 to 1")
