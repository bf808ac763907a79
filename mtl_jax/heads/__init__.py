"""Heads: modules from feature maps or tokens to logits. `build` makes one by name, `register` adds a name."""

from mtl_jax.heads.bn_linear import BNLinearHead
from mtl_jax.heads.deeplab import DeepLabHead
from mtl_jax.heads.dpt import DPTHead
from mtl_jax.heads.hrnet import Fusion, HRNetHead
from mtl_jax.heads.linear import LinearHead
from mtl_jax.heads.registry import HEADS, build, check, reads_tokens, register
from mtl_jax.heads.regression import REGRESSIONS, Regression, RegressionHead, register_regression
from mtl_jax.heads.regression import check as check_regression

__all__ = [
    "HEADS",
    "REGRESSIONS",
    "BNLinearHead",
    "DPTHead",
    "DeepLabHead",
    "Fusion",
    "HRNetHead",
    "LinearHead",
    "Regression",
    "RegressionHead",
    "build",
    "check",
    "check_regression",
    "reads_tokens",
    "register",
    "register_regression",
]
