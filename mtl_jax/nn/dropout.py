"""Dropout that takes its random numbers from the view."""

from flax import nnx


class Dropout(nnx.Dropout):
    """Zeroes elements with probability `rate` in training and scales the others by 1 / (1 - rate).

    The module and its checkpoints hold no generator. A training step hands one in, derived from the number of the step:
    `nnx.view(model, deterministic=False, rngs=nnx.Rngs(dropout=key))`.

    Args:
        rate: Probability.
    """

    def __init__(self, rate: float):
        super().__init__(rate)

    def set_view(self, deterministic: bool | None = None, rngs: nnx.Rngs | None = None):
        """Sets attributes of a view; `nnx.view` calls it."""
        super().set_view(deterministic)
        if rngs is not None:
            self.rngs = rngs["dropout"]
