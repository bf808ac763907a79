"""Batches in parts, which are computed one after the other."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp


def split(batch: Mapping[str, jax.Array], number: int) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the indices `[number]` of the micro-batches of a batch, and their arrays `[number, B / number, ...]`.

    A micro-batch consists of every number-th image. Each device can then take its part of every micro-batch from its
    part of the batch, and no image moves to another device.
    """
    return jnp.arange(number), {name: x.reshape(-1, number, *x.shape[1:]).swapaxes(0, 1) for name, x in batch.items()}
