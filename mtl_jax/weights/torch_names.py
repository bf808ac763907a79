"""Arrays of an NNX module under the names and in the layout of a torch state_dict.

The modules are named after the keys of the recorded state_dicts, so only the last part of a path changes: `kernel` and
`scale` are torch's `weight`, and the statistics are `running_mean` and `running_var`. A table has the few modules with
other names. The layout of an array depends on the class of its module and on its own name (`register_layout`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from mtl_jax.nn import Conv, DepthwiseConv, DoublingConv, Frozen, Linear, PatchProjection, TransposedConv

_NAMES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
_MODULES = {"nddr.layer1.": "nddr.layer1_without_conv."}  # beginnings of whole keys: ours and torch's
_SHOWN = 50  # problems that an error lists
_COUNTER = "num_batches_tracked"  # torch counts batches where momentum is None; mtl_jax does not use the counters
_KERNEL = "kernel"

# {module class: {name of a parameter: order of its axes in torch}}
_LAYOUTS: dict[type[nnx.Module], dict[str, tuple[int, ...]]] = {}


def register_layout(module: type[nnx.Module], layout: Mapping[str, tuple[int, ...]]) -> None:
    """Registers how torch lays out parameters of a module class.

    A parameter that no layout names has the same axes in torch, unless it is called `kernel`: the kernels of a class
    without a layout are an error, since torch stores most of them transposed.

    Args:
        module: The class. Its subclasses have the same layout unless they have one of their own.
        layout: {name of a parameter: order of its axes in torch}, for example {"kernel": (3, 2, 0, 1)} for a kernel
            `[kh, kw, in, out]` that is `[out, in, kh, kw]` in torch.

    Raises:
        ValueError: The order of a parameter's axes is no permutation.
    """
    for name, axes in layout.items():
        if sorted(axes) != list(range(len(axes))):
            raise ValueError(f"the layout of {module.__name__}.{name} is {axes}; give a permutation of its axes")
    _LAYOUTS[module] = dict(layout)


register_layout(Conv, {_KERNEL: (3, 2, 0, 1)})
register_layout(DepthwiseConv, {_KERNEL: (3, 2, 0, 1)})
register_layout(PatchProjection, {_KERNEL: (3, 2, 0, 1)})
register_layout(TransposedConv, {_KERNEL: (2, 3, 0, 1)})
register_layout(DoublingConv, {_KERNEL: (2, 3, 0, 1)})
register_layout(nnx.Conv, {_KERNEL: (3, 2, 0, 1)})
register_layout(Linear, {_KERNEL: (1, 0)})
register_layout(nnx.Linear, {_KERNEL: (1, 0)})


def _axes(module: nnx.Module, name: str, ndim: int) -> tuple[int, ...]:
    """Returns the order of a parameter's axes in torch.

    Raises:
        ValueError: The parameter is a kernel without a layout, or its layout is for another number of axes.
    """
    kind = type(module)
    layout = next((_LAYOUTS[base] for base in kind.__mro__ if base in _LAYOUTS), {})
    axes = layout.get(name, () if name == _KERNEL else tuple(range(ndim)))
    if len(axes) != ndim:
        raise ValueError(
            f"the layout of {kind.__name__}.{name} with {ndim} axes in torch is not known; register it with "
            f"mtl_jax.weights.register_layout({kind.__name__}, {{{name!r}: ORDER_OF_AXES}})"
        )
    return axes


class _Slot(NamedTuple):
    """A parameter or running statistic, and the order of its axes in torch."""

    variable: nnx.Variable
    axes: tuple[int, ...]


def _slots(model: nnx.Module) -> dict[str, _Slot]:
    """Returns {torch key: slot} of every parameter and running statistic."""
    modules = {path: module for path, module in nnx.iter_graph(model) if isinstance(module, nnx.Module)}
    slots = {}
    for path, variable in nnx.iter_graph(model):
        if isinstance(variable, nnx.Param | Frozen | nnx.BatchStat):
            owner = modules[path[:-1]]
            slots[_torch_key(path)] = _Slot(variable, _axes(owner, str(path[-1]), len(variable.shape)))
    return slots


def _torch_key(path: Sequence[Any]) -> str:
    key = ".".join(map(str, (*path[:-1], _NAMES.get(str(path[-1]), path[-1]))))
    for ours, torchs in _MODULES.items():
        if key.startswith(ours):
            return torchs + key.removeprefix(ours)
    return key


def torch_keys(model: nnx.Module) -> list[str]:
    """Returns the torch keys of all parameters and running statistics.

    Args:
        model: The model, which may be the result of `nnx.eval_shape`.

    Raises:
        ValueError: A kernel's layout in torch is not known; the message says what to register.
    """
    return list(_slots(model))


def to_torch(model: nnx.Module) -> dict[str, np.ndarray]:
    """Returns {torch key: array in torch's layout} of all parameters and running statistics.

    torch's `num_batches_tracked` counters are left out; `load_state_dict(strict=True)` accepts that.

    Raises:
        ValueError: A kernel's layout in torch is not known; the message says what to register.
    """
    # order="C" makes the arrays contiguous and, unlike np.ascontiguousarray, leaves a single number without axes.
    return {
        key: np.asarray(np.asarray(slot.variable[...]).transpose(slot.axes), order="C")
        for key, slot in _slots(model).items()
    }


def load_torch(model: nnx.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Overwrites every parameter and running statistic of a model, which keeps its dtypes.

    Args:
        model: The model, which may be the result of `nnx.eval_shape`.
        arrays: {torch key: array in torch's layout}; `num_batches_tracked` counters are ignored.

    Raises:
        ValueError: An array is missing, has no place in the model, or has another shape or a type other than floating
            point (the message lists the first problems); or a kernel's layout in torch is not known. The model is then
            unchanged.
    """
    for variable, value in _match(model, arrays):
        variable.set_value(jnp.asarray(value, dtype=variable.dtype))


def check_torch(model: nnx.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Checks arrays as `load_torch` does, without loading them.

    Args:
        model: The model, which may be the result of `nnx.eval_shape`.
        arrays: {torch key: array in torch's layout}.

    Raises:
        ValueError: See `load_torch`.
    """
    _match(model, arrays)


def _match(model: nnx.Module, arrays: Mapping[str, np.ndarray]) -> list[tuple[nnx.Variable, np.ndarray]]:
    """Returns (variable, value in the variable's layout) for every variable."""
    given = {key: np.asarray(value) for key, value in arrays.items() if not key.endswith(_COUNTER)}
    slots = _slots(model)
    problems = [f"unmatched: {key} {given[key].shape}" for key in given if key not in slots]
    problems += [f"unfilled: {key}" for key in slots if key not in given]
    pairs = []
    for key, (variable, axes) in slots.items():
        if key not in given:
            continue
        value, expected = given[key], tuple(variable.shape[axis] for axis in axes)
        if value.shape != expected:
            problems.append(f"shape: {key} is {value.shape}, the model has {expected}")
        else:
            value = value.transpose(np.argsort(axes))
        if value.dtype.kind != "f":
            problems.append(f"dtype: {key} is {value.dtype}, the model has {variable.dtype}")
        pairs.append((variable, value))
    if problems:
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        listed = "\n  ".join([*problems[:_SHOWN], *more])
        raise ValueError(f"the weights do not fit {type(model).__name__} ({len(problems)} problems):\n  {listed}")
    return pairs
