"""Rematerialisation: activations that are recomputed in the backward pass instead of being stored for it.

The code of a forward pass does not mention it. A model divides its forward pass into named stages (`Staged`), the
methods that may recompute are decorated (`recomputable`), and `select` marks the modules of the chosen stages.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from flax import nnx

Method = TypeVar("Method", bound=Callable[..., Any])


def recomputable(method: Method) -> Method:
    """Decorates a module's `__call__` so that it recomputes its activations where `select` has marked the module.

    The method's arguments and results are pytrees of arrays. Running statistics and random numbers move once: the
    second pass starts from the values of the first.
    """

    @functools.wraps(method)
    def call(module: nnx.Module, *args: Any) -> Any:
        return recompute(method, module, *args) if getattr(module, "remat", ()) else method(module, *args)

    vars(call)["recomputable"] = True
    decorated: Any = call
    return decorated


def recompute(function: Callable[..., Any], *args: Any) -> Any:
    """Calls a function so that its activations are recomputed in the backward pass.

    Args:
        function: Function of modules and arrays.
        *args: Its arguments. Every module that the function uses is among them.
    """
    return nnx.compat.remat(function)(*args)  # in every mode of Flax, modules may share random numbers


class Staged(nnx.Module):
    """A module whose forward pass is divided into named stages.

    Attributes:
        stages: Names of the stages.
        remat: Names of the stages that recompute their activations; `select` sets it.
    """

    stages: tuple[str, ...] = ()
    remat: tuple[str, ...] = ()

    def parts(self, stage: str) -> Iterable[nnx.Module]:
        """Returns the submodules that a stage calls. Their `__call__` is `recomputable`.

        A module that runs a stage itself, as backbones do, returns none and looks at `remat`.
        """
        return ()


def select(module: nnx.Module, names: tuple[str, ...]) -> None:
    """Lets the stages of these names recompute their activations, and all others store them.

    Args:
        module: A model, whose own stages and those of the modules inside it have names.
        names: Stages that recompute.

    Raises:
        ValueError: Neither the module nor a module inside it has such a stage (the message lists the stages), or a
            stage calls a module that cannot recompute.
    """
    staged = [part for _, part in nnx.iter_modules(module) if isinstance(part, Staged)]
    known = dict.fromkeys(stage for part in staged for stage in part.stages)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"model.remat names {', '.join(unknown)}; the stages of this model are {', '.join(known)}")
    for owner in staged:
        selected = tuple(name for name in names if name in owner.stages)
        if owner.remat != selected:
            owner.remat = selected
        for stage, part in _parts(owner):
            _mark(part, tuple(name for name in selected if name == stage))


def _parts(owner: Staged) -> Iterator[tuple[str, Any]]:
    for stage in owner.stages:
        for part in owner.parts(stage):
            yield stage, part


def _mark(part: Any, stages: tuple[str, ...]) -> None:
    kind = type(part)
    if stages and not getattr(kind.__call__, "recomputable", False):
        raise ValueError(
            f"model.remat names {', '.join(stages)}, which calls {kind.__name__}, and that cannot recompute its "
            f"activations; decorate {kind.__name__}.__call__ with mtl_jax.nn.recomputable"
        )
    if getattr(part, "remat", ()) != stages:
        part.remat = stages
