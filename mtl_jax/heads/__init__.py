"""Heads: modules from feature maps to logits. `build` makes one by name, `register` adds a name."""

from mtl_jax.heads.deeplab import DeepLabHead
from mtl_jax.heads.hrnet import Fusion, HRNetHead
from mtl_jax.heads.registry import HEADS, build, register

__all__ = ["HEADS", "DeepLabHead", "Fusion", "HRNetHead", "build", "register"]
