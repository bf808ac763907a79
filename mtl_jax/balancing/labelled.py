"""Handling of the tasks without a label in a batch, for methods that read the losses alone.

The loss of such a task is a mean over nothing, which is exactly 0, and so is its gradient. A method that took this 0
for a success would give all weight to one task, or let a learned weight grow.
"""

import jax
import jax.numpy as jnp


def labelled(losses: jax.Array) -> jax.Array:
    """Returns a bool `[T]` that is True for the tasks whose loss, of `losses` `[T]`, is not exactly 0."""
    return losses != 0


def softmax(logits: jax.Array, among: jax.Array) -> jax.Array:
    """Computes the softmax `[T]` over the tasks selected by the bool `among` `[T]`, and 0 for all other tasks."""
    return jnp.where(among, jax.nn.softmax(jnp.where(among, logits, jnp.finfo(logits.dtype).min)), 0)
