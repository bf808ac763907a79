"""The losses by the names that the task table uses."""

from collections.abc import Callable
from functools import partial

import jax

from mtl_jax.losses.cross_entropy import balanced_cross_entropy, softmax_cross_entropy
from mtl_jax.losses.regression import depth_l1, normals_l1

# (prediction, label, counts=...) -> scalar
LOSSES: dict[str, Callable[..., jax.Array]] = {
    "softmax_cross_entropy": softmax_cross_entropy,
    "balanced_cross_entropy": balanced_cross_entropy,
    "edge_cross_entropy": partial(balanced_cross_entropy, positive_weight=0.95),
    "depth_l1": depth_l1,
    "normals_l1": normals_l1,
}
