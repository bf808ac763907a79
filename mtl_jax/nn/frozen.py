"""Parameters that do not learn."""

from typing import TypeVar

from flax import nnx

M = TypeVar("M", bound=nnx.Module)


class Frozen(nnx.Variable):
    """A parameter that training leaves as it is.

    It is no `nnx.Param`, so it has neither a gradient nor a state in the optimiser.
    """


def freeze_parameters(module: M) -> M:
    """Makes all parameters of a module `Frozen`, in place, and returns the module.

    A layer whose result is never used has no gradient. An optimiser with weight decay would move its parameters all the
    same, if they were no frozen ones.
    """
    for _, part in list(nnx.iter_modules(module)):
        for name, value in list(vars(part).items()):
            if isinstance(value, nnx.Param):
                setattr(part, name, Frozen(value.get_value()))
    return module
