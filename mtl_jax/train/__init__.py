"""Training: state, steps, checkpoints and the loop that ties them."""

from mtl_jax.train.loop import NonFiniteLossError, fit

__all__ = ["NonFiniteLossError", "fit"]
