"""The losses by the names that the task table uses."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import jax

from mtl_jax.losses.cross_entropy import balanced_cross_entropy, softmax_cross_entropy
from mtl_jax.losses.regression import depth_l1, normals_l1
from mtl_jax.registry import Registry

Loss = TypeVar("Loss", bound=Callable[..., jax.Array])

LOSSES: Registry[Callable[..., jax.Array]] = Registry("loss", "losses", "mtl_jax.losses.register")


def register(name: str) -> Callable[[Loss], Loss]:
    """Returns a decorator that registers a loss, which tasks and the configuration's `losses` then may name::

        @losses.register("depth_l2")
        def depth_l2(prediction, label, *, counts=None):
            return losses.masked_mean((prediction - label) ** 2, label != tasks.IGNORE, counts)

    A loss is called as `loss(prediction, label, counts=counts)` with logits `[B, H, W, C]` in float32 at least, a
    delivered label `[B, H, W, C']` of the same size, and the `LabelCounts` of the whole batch where these images are a
    part of it, else None. It returns a scalar.

    Args:
        name: Name of the loss.

    Raises:
        ValueError: The name is taken.
    """
    return LOSSES.decorator(name)


register("softmax_cross_entropy")(softmax_cross_entropy)
register("balanced_cross_entropy")(balanced_cross_entropy)
register("edge_cross_entropy")(partial(balanced_cross_entropy, positive_weight=0.95))
register("depth_l1")(depth_l1)
register("normals_l1")(normals_l1)
