"""Means over the valid elements of a batch."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtl_jax.tasks import IGNORE, TASKS


class LabelCounts(NamedTuple):
    """Counts of a label over a whole batch, for a loss that receives the batch in parts.

    With these counts the losses of the parts add up to the loss of the batch.

    Attributes:
        valid: Number of elements of the label that are not ignored.
        positive: Number of valid elements that are at least 0.5.
    """

    valid: jax.Array
    positive: jax.Array


def count(label: jax.Array) -> LabelCounts:
    """Returns the counts of a label `[B, H, W, C]`."""
    valid = label != IGNORE
    return LabelCounts(valid.sum(), (valid & (label >= 0.5)).sum())


def count_labels(batch: Mapping[str, jax.Array]) -> dict[str, LabelCounts]:
    """Returns {task: counts of its label} for every task in a batch."""
    return {task: count(batch[task]) for task in TASKS if task in batch}


def masked_mean(values: jax.Array, valid: jax.Array, counts: LabelCounts | None = None) -> jax.Array:
    """Computes the mean of the valid values, 0 if no value is valid.

    Args:
        values: Values of any shape.
        valid: Mask of the same shape, True for values that count.
        counts: Counts of the whole batch, if the values are a part of it. The sum of the valid values is then divided
            by the number of valid elements of the batch.
    """
    number = valid.sum() if counts is None else counts.valid
    return jnp.where(valid, values, 0).sum() / jnp.maximum(number, 1).astype(values.dtype)
