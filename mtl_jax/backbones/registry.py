"""The backbones by name."""

from collections.abc import Callable
from typing import TypeVar

from flax import nnx

from mtl_jax.backbones.base import Backbone
from mtl_jax.registry import Registry

Factory = TypeVar("Factory", bound=Callable[..., Backbone])

BACKBONES: Registry[Callable[..., Backbone]] = Registry("backbone", "backbones", "mtl_jax.backbones.register")


def register(*names: str) -> Callable[[Factory], Factory]:
    """Returns a decorator that registers a factory of backbones, which `model.backbone` then may name::

        @backbones.register("vit_small", "vit_base")
        def build_vit(name, *, image_size, rngs):
            return ViT(**SIZES[name], image_size=image_size, rngs=rngs)

    A factory is called as `factory(name, image_size=(height, width), rngs=rngs)`. The image size, in pixels, is the
    network's input size in training and evaluation, or None where it is not known; convolutional backbones ignore it.

    Args:
        *names: Names under which the factory is registered.

    Raises:
        ValueError: A name is taken.
    """
    return BACKBONES.decorator(*names)


def build(name: str, *, image_size: tuple[int, int] | None = None, rngs: nnx.Rngs) -> Backbone:
    """Builds a backbone with random initial weights.

    Args:
        name: A key of `BACKBONES`.
        image_size: (height, width) of the network's inputs in pixels; None if it is not known.
        rngs: Source of the initial weights.

    Raises:
        ValueError: There is no such backbone.
    """
    return BACKBONES[name](name, image_size=image_size, rngs=rngs)
