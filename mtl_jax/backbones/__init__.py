"""Backbones: images to feature maps. `build` makes one by name."""

from collections.abc import Callable

from flax import nnx
from flax.typing import Dtype

from mtl_jax.backbones import hrnet, resnet
from mtl_jax.backbones.base import Backbone, Maps
from mtl_jax.backbones.hrnet import HRNet
from mtl_jax.backbones.resnet import ResNet

BACKBONES: dict[str, Callable[..., Backbone]] = {
    **dict.fromkeys(hrnet.VARIANTS, HRNet),
    **dict.fromkeys(resnet.VARIANTS, ResNet),
}


def build(name: str, *, dtype: Dtype | None = None, rngs: nnx.Rngs) -> Backbone:
    """A backbone with default initialisation; its `channels` tell the width of each feature map.

    Raises:
        ValueError: no such backbone.
    """
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}; the backbones are {', '.join(BACKBONES)}")
    return BACKBONES[name](name, dtype=dtype, rngs=rngs)


__all__ = ["BACKBONES", "Backbone", "HRNet", "Maps", "ResNet", "build"]
