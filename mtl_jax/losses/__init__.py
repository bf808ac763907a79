"""Losses: pure functions from a prediction `[B, H, W, C]` and a label `[B, H, W, C']` to a scalar.

Elements whose label is 255 are ignored: an image without a label of a task adds nothing to the loss of the task. If the
whole batch has no valid element, the loss and its gradient are 0.

A loss is a mean over the elements of the batch. Where a batch is computed in parts, each call gets the `LabelCounts` of
the whole batch, and the losses of the parts add up to the loss of the batch.
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
