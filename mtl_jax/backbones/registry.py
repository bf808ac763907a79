"""The backbones by name."""

from collections.abc import Callable
from typing import TypeVar

from flax import nnx

from mtl_jax.backbones.base import Backbone
from mtl_jax.registry import Registry

Factory = TypeVar("Factory", bound=Callable[..., Backbone])

BACKBONES: Registry[Callable[..., Backbone]] = Registry("backbone", "backbones", "mtl_jax.backbones.register")
# Those of the same names whose maps have one resolution, for models that read plain tokens.
PLAIN: Registry[Callable[..., Backbone]] = Registry(
    "plain backbone", "plain backbones", "mtl_jax.backbones.register_plain"
)


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


def register_plain(*names: str) -> Callable[[Factory], Factory]:
    """Returns a decorator that registers a factory of backbones whose maps have one resolution.

    The names are those of backbones that `register` knows. Models that read plain tokens, such as InvPT, take the
    backbone that this factory builds in place of the other one. It is called as `factory(name, image_size=(height,
    width), drop_path=rate, rngs=rngs)`; the rate is that of stochastic depth in the last block.

    Args:
        *names: Names under which the factory is registered.

    Raises:
        ValueError: A name is taken.
    """
    return PLAIN.decorator(*names)


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


def build_plain(
    name: str, *, image_size: tuple[int, int] | None = None, drop_path: float = 0.0, rngs: nnx.Rngs
) -> Backbone:
    """Builds a backbone of a name whose maps have one resolution, or the one of `build` where there is no such one.

    Args:
        name: A key of `BACKBONES`.
        image_size: (height, width) of the network's inputs in pixels; None if it is not known.
        drop_path: Rate of stochastic depth in the last block of a plain backbone; others have their own.
        rngs: Source of the initial weights.

    Raises:
        ValueError: There is no such backbone.
    """
    if name in PLAIN:
        return PLAIN[name](name, image_size=image_size, drop_path=drop_path, rngs=rngs)
    return build(name, image_size=image_size, rngs=rngs)
