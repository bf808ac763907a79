"""Parameters that do not learn."""

from flax import nnx


class Frozen(nnx.Variable):
    """A parameter that training leaves as it is.

    It is no `nnx.Param`, so it has neither a gradient nor a state in the optimiser.
    """
