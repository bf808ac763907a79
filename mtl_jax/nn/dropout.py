"""Dropout whose random numbers come with the view."""

from flax import nnx


class Dropout(nnx.Dropout):
    """Zeroes elements with probability `rate` in training and scales the others by 1 / (1 - rate).

    The module keeps no generator, so checkpoints hold none: a training step hands one in, derived from the number of
    the step, as `nnx.view(model, deterministic=False, rngs=nnx.Rngs(dropout=key))`.
    """

    def __init__(self, rate: float):
        super().__init__(rate)

    def set_view(self, deterministic: bool | None = None, rngs: nnx.Rngs | None = None):
        """Called by `nnx.view`."""
        super().set_view(deterministic)
        if rngs is not None:
            self.rngs = rngs["dropout"]
