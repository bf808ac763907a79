"""Random numbers of the recipes of 2020, as tests write them."""

from mtl_jax.data.augmentation import Draw
from mtl_jax.data.augmentation.geometry import Turn


def published(flip: bool = False, angle: float = 0.0, scale: float = 1.0) -> Draw:
    """What astmt, survey and none draw: whether to flip, an angle in degrees, a scale."""
    return flip, Turn(angle, scale), None
