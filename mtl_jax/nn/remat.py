"""Activations that are recomputed in the backward pass instead of being kept for it."""

from collections.abc import Callable
from typing import TypeVar

from flax import nnx

Result = TypeVar("Result")


class Staged(nnx.Module):
    """A module that runs in stages, which keep their activations for the backward pass or recompute them.

    Attributes:
        stages: their names.
        remat: those that keep their inputs alone; of no effect but on memory and time.
    """

    stages: tuple[str, ...] = ()
    remat: tuple[str, ...] = ()

    def set_view(self, remat: tuple[str, ...] | None = None):
        """Called by `nnx.view`."""
        if remat is not None:
            self.remat = remat

    def run(self, stage: str, function: Callable[..., Result], *args) -> Result:
        """`function(*args)` as (a part of) a stage; the modules it uses have to be among the arguments."""
        # Running statistics and random numbers move once: the second pass starts from the values of the first.
        return (nnx.remat(function) if stage in self.remat else function)(*args)


def select(module: nnx.Module, names: tuple[str, ...]) -> None:
    """Makes the stages of these names recompute their activations, all others keep them.

    Raises:
        ValueError: neither the module nor one inside it has such a stage; the message lists those there are.
    """
    staged = [part for _, part in nnx.iter_modules(module) if isinstance(part, Staged)]
    known = dict.fromkeys(stage for part in staged for stage in part.stages)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"model.remat names {', '.join(unknown)}; the stages of this model are {', '.join(known)}")
    for part in staged:
        part.remat = tuple(name for name in names if name in part.stages)
