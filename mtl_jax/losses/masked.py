"""Means over the valid elements of a batch."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtl_jax.tasks import IGNORE, TASKS


class LabelCounts(NamedTuple):
    """What a loss has to know of a batch whose parts it is given one by one: theirs then add up to the batch's.

    Attributes:
        valid: number of elements of the label that are not ignored.
        positive: number of valid elements that are at least 0.5.
    """

    valid: jax.Array
    positive: jax.Array


def count(label: jax.Array) -> LabelCounts:
    """The counts of a label `[B, H, W, C]`."""
    valid = label != IGNORE
    return LabelCounts(valid.sum(), (valid & (label >= 0.5)).sum())


def count_labels(batch: Mapping[str, jax.Array]) -> dict[str, LabelCounts]:
    """{task: counts of its label} for every task in a batch."""
    return {task: count(batch[task]) for task in TASKS if task in batch}


def masked_mean(values: jax.Array, valid: jax.Array, counts: LabelCounts | None = None) -> jax.Array:
    """Mean of `values` where `valid`; 0 where nothing is. Both have the same shape.

    Args:
        counts: of the whole batch, where these values are a part of it: their sum divided by its number.
    """
    number = valid.sum() if counts is None else counts.valid
    return jnp.where(valid, values, 0).sum() / jnp.maximum(number, 1).astype(values.dtype)
