"""Backbones: networks from images to feature maps. `build` makes one by name, `register` adds a name."""

from mtl_jax.backbones.base import Backbone, Maps
from mtl_jax.backbones.convnext import ConvNeXt
from mtl_jax.backbones.hrnet import HRNet
from mtl_jax.backbones.registry import BACKBONES, PLAIN, build, build_plain, register, register_plain
from mtl_jax.backbones.resnet import ResNet
from mtl_jax.backbones.swin import Swin
from mtl_jax.backbones.vit import PlainViT, ViT

__all__ = [
    "BACKBONES",
    "PLAIN",
    "Backbone",
    "ConvNeXt",
    "HRNet",
    "Maps",
    "PlainViT",
    "ResNet",
    "Swin",
    "ViT",
    "build",
    "build_plain",
    "register",
    "register_plain",
]
