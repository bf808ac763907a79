"""Submodules whose attribute names differ by a number."""

from typing import Any

from flax import nnx


class Numbered:
    """A family of submodules, such as `scale_0` to `scale_3`, that code reaches by their numbers.

    Weights files and checkpoints name each member as an attribute of the model, so they cannot be in a list. A class
    attribute gives the family a name of its own::

        class Network(nnx.Module):
            prediction = Numbered("scale_{}")

            def __init__(self):
                self.prediction[0] = ...  # the attribute `scale_0`

    Args:
        pattern: The attributes' name, with `{}` in place of the number.
    """

    def __init__(self, pattern: str):
        self.pattern = pattern

    def __get__(self, module: nnx.Module, owner: type | None = None) -> "_Family":
        return _Family(module, self.pattern)


class _Family:
    """The numbered submodules of one module."""

    def __init__(self, module: nnx.Module, pattern: str):
        self._module, self._pattern = module, pattern

    def __getitem__(self, number: int) -> Any:
        return getattr(self._module, self._pattern.format(number))

    def __setitem__(self, number: int, submodule: nnx.Module) -> None:
        setattr(self._module, self._pattern.format(number), submodule)
