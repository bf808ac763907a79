"""Backbones: networks from images to feature maps. `build` makes one by name, `register` adds a name."""

from mtl_jax.backbones.base import Backbone, Maps
from mtl_jax.backbones.convnext import ConvNeXt
from mtl_jax.backbones.efficientnet_lite import EfficientNetLite
from mtl_jax.backbones.hrnet import HRNet
from mtl_jax.backbones.mobile import MobileNet
from mtl_jax.backbones.mobilenet_v2 import build_mobilenet_v2
from mtl_jax.backbones.mobilenet_v3 import build_mobilenet_v3
from mtl_jax.backbones.registry import BACKBONES, PLAIN, build, build_plain, register, register_plain
from mtl_jax.backbones.resnet import ResNet
from mtl_jax.backbones.swin import Swin
from mtl_jax.backbones.vit import PlainViT, ViT
from mtl_jax.backbones.weights_table import (
    WEIGHTS,
    Weights,
    default_weights,
    register_weights,
    weights_of,
    weights_path,
)

__all__ = [
    "BACKBONES",
    "PLAIN",
    "WEIGHTS",
    "Backbone",
    "ConvNeXt",
    "EfficientNetLite",
    "HRNet",
    "Maps",
    "MobileNet",
    "PlainViT",
    "ResNet",
    "Swin",
    "ViT",
    "Weights",
    "build",
    "build_mobilenet_v2",
    "build_mobilenet_v3",
    "build_plain",
    "default_weights",
    "register",
    "register_plain",
    "register_weights",
    "weights_of",
    "weights_path",
]
