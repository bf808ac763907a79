"""Losses: pure functions from a prediction `[B, H, W, C]` and a label `[B, H, W, C']` to a scalar.

Elements whose label is 255 are ignored: an image without a label of a task adds nothing to the loss of the task. If the
whole batch has no valid element, the loss and its gradient are 0.

A loss is a mean over the elements of the batch, or over its labelled images. Where a batch is computed in parts, each
call gets the `LabelCounts` of the whole batch, and the losses of the parts add up to the loss of the batch.

A configuration names losses in the notation of `mtl_jax.losses.terms`: `ce`, `ce+0.5*dice`, `focal:gamma=2`.
"""

from mtl_jax.losses.absolute import absolute
from mtl_jax.losses.cross_entropy import balanced_cross_entropy, edge_cross_entropy, softmax_cross_entropy
from mtl_jax.losses.dice import sigmoid_dice, softmax_dice
from mtl_jax.losses.focal import softmax_focal
from mtl_jax.losses.gradient_matching import depth_gradient
from mtl_jax.losses.lovasz import lovasz_softmax
from mtl_jax.losses.masked import LabelCounts, count, count_labels, masked_mean, mean_over_images
from mtl_jax.losses.measured import MEASURED, Frequencies
from mtl_jax.losses.objectives import Objective
from mtl_jax.losses.ohem import ohem_cross_entropy
from mtl_jax.losses.real_values import depth_berhu, depth_l1, depth_l2, depth_silog
from mtl_jax.losses.registry import LOSSES, SHORT_NAMES, fits, fitting, kinds_of, register, short_name
from mtl_jax.losses.terms import TaskLoss, check, needs_measuring, with_numbers
from mtl_jax.losses.unit_vectors import normals_angular, normals_cosine, normals_l1, normals_l2

__all__ = [
    "LOSSES",
    "MEASURED",
    "SHORT_NAMES",
    "Frequencies",
    "LabelCounts",
    "Objective",
    "TaskLoss",
    "absolute",
    "balanced_cross_entropy",
    "check",
    "count",
    "count_labels",
    "depth_berhu",
    "depth_gradient",
    "depth_l1",
    "depth_l2",
    "depth_silog",
    "edge_cross_entropy",
    "fits",
    "fitting",
    "kinds_of",
    "lovasz_softmax",
    "masked_mean",
    "mean_over_images",
    "needs_measuring",
    "normals_angular",
    "normals_cosine",
    "normals_l1",
    "normals_l2",
    "ohem_cross_entropy",
    "register",
    "short_name",
    "sigmoid_dice",
    "softmax_cross_entropy",
    "softmax_dice",
    "softmax_focal",
    "with_numbers",
]
