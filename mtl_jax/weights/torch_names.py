"""NNX state <-> arrays named and laid out as in a torch state_dict.

The modules are named after the recorded state_dict keys, so only the last part of a path changes: `kernel` and `scale`
are torch's `weight`, the statistics `running_mean` and `running_var`. The few modules with other names are in a table.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from mtl_jax.nn import Conv, Linear

_NAMES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
_MODULES = {"nddr.layer1.": "nddr.layer1_without_conv."}  # beginnings of whole keys, ours and torch's
_SHOWN = 50  # problems in an error
_COUNTER = "num_batches_tracked"  # torch counts batches where momentum is None; nothing reads it here
_KERNEL = "kernel"

# {module class: {name of a parameter: order of its axes in torch}}; parameters that are not listed are laid out alike.
_LAYOUTS: dict[type[nnx.Module], dict[str, tuple[int, ...]]] = {}


def register_layout(module: type[nnx.Module], layout: Mapping[str, tuple[int, ...]]) -> None:
    """Says how torch lays out the parameters of a class of modules.

    Args:
        module: The class; its subclasses have the same layout unless they are registered themselves.
        layout: {name of a parameter: order of our axes in torch}, for example {"kernel": (3, 2, 0, 1)} for a kernel
            `[kh, kw, in, out]` that is `[out, in, kh, kw]` in torch. Parameters that are not named are laid out alike.
    """
    _LAYOUTS[module] = dict(layout)


register_layout(Conv, {_KERNEL: (3, 2, 0, 1)})
register_layout(nnx.Conv, {_KERNEL: (3, 2, 0, 1)})
register_layout(Linear, {_KERNEL: (1, 0)})
register_layout(nnx.Linear, {_KERNEL: (1, 0)})


def _axes(module: nnx.Module, name: str, ndim: int) -> tuple[int, ...]:
    """Returns the order of a parameter's axes in torch.

    Raises:
        ValueError: It is the kernel of a class whose layout is not known.
    """
    for kind in type(module).__mro__:
        if kind in _LAYOUTS:
            return _LAYOUTS[kind].get(name, tuple(range(ndim)))
    if name == _KERNEL:
        raise ValueError(
            f"the layout of {type(module).__name__}.{name} in torch is not known; say it with "
            f"mtl_jax.weights.register_layout({type(module).__name__}, {{{name!r}: ORDER_OF_AXES}})"
        )
    return tuple(range(ndim))


class _Slot(NamedTuple):
    """A parameter or running statistic, and the order of its axes in torch."""

    variable: nnx.Variable
    axes: tuple[int, ...]


def _slots(model: nnx.Module) -> dict[str, _Slot]:
    """Returns {torch key: slot} of every parameter and running statistic."""
    modules = {path: module for path, module in nnx.iter_graph(model) if isinstance(module, nnx.Module)}
    slots = {}
    for path, variable in nnx.iter_graph(model):
        if isinstance(variable, nnx.Param | nnx.BatchStat):
            owner = modules[path[:-1]]
            slots[_torch_key(path)] = _Slot(variable, _axes(owner, str(path[-1]), len(variable.shape)))
    return slots


def _torch_key(path: Sequence[Any]) -> str:
    key = ".".join(map(str, (*path[:-1], _NAMES.get(str(path[-1]), path[-1]))))
    for ours, torchs in _MODULES.items():
        if key.startswith(ours):
            return torchs + key.removeprefix(ours)
    return key


def to_torch(model: nnx.Module) -> dict[str, np.ndarray]:
    """Returns {torch key: array in torch's layout} of all parameters and running statistics.

    torch's `num_batches_tracked` counters are left out; `load_state_dict(strict=True)` accepts that.

    Raises:
        ValueError: A kernel's layout in torch is not known; the message says what to register.
    """
    return {
        key: np.ascontiguousarray(np.asarray(slot.variable[...]).transpose(slot.axes))
        for key, slot in _slots(model).items()
    }


def load_torch(model: nnx.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Overwrites every parameter and running statistic of `model`, which keeps its dtypes.

    Args:
        arrays: {torch key: array in torch's layout}; `num_batches_tracked` counters are ignored.

    Raises:
        ValueError: keys without a place in the model, places without a key, other shapes, or numbers that are not
            floating point: the first of them are listed. The model is then unchanged.
    """
    for variable, value in _match(model, arrays):
        variable[...] = jnp.asarray(value, dtype=variable.dtype)


def check_torch(model: nnx.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Raises what `load_torch` would, and loads nothing: the model may be the result of `nnx.eval_shape`."""
    _match(model, arrays)


def _match(model: nnx.Module, arrays: Mapping[str, np.ndarray]) -> list[tuple[nnx.Variable, np.ndarray]]:
    """Every variable with its value in our layout."""
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
