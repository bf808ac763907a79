"""Tasks that a batch has no label of: methods that read the losses alone know them by these.

Their loss is a mean over nothing, exactly 0, as is its gradient. Taken for a success it would draw all weight to one
task, or make a learned weight grow.
"""

import jax
import jax.numpy as jnp


def labelled(losses: jax.Array) -> jax.Array:
    """`[T]` -> bool `[T]`: those whose loss is not exactly 0."""
    return losses != 0


def softmax(logits: jax.Array, among: jax.Array) -> jax.Array:
    """`[T]`: over some of the tasks; 0 for the others, and for all if there are none."""
    return jnp.where(among, jax.nn.softmax(jnp.where(among, logits, jnp.finfo(logits.dtype).min)), 0)
