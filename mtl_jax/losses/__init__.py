"""Losses: pure functions of a prediction `[B, H, W, C]` and a label `[B, H, W, C']`; every one returns a scalar.

Elements whose label is 255 are ignored: an image without a label of a task adds nothing to its loss. With nothing valid
in the whole batch a loss is 0 and so is its gradient.

Means are over the elements of the batch, unless a loss is told the counts of a larger one: then the losses of its parts
add up to its own.
"""

from mtl_jax.losses.cross_entropy import balanced_cross_entropy, softmax_cross_entropy
from mtl_jax.losses.masked import LabelCounts, count, count_labels, masked_mean
from mtl_jax.losses.objectives import Objective
from mtl_jax.losses.registry import LOSSES, register
from mtl_jax.losses.regression import depth_l1, normals_l1

__all__ = [
    "LOSSES",
    "LabelCounts",
    "Objective",
    "balanced_cross_entropy",
    "count",
    "count_labels",
    "depth_l1",
    "masked_mean",
    "normals_l1",
    "register",
    "softmax_cross_entropy",
]
