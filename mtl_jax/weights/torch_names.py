"""NNX state <-> arrays named and laid out as in a torch state_dict.

The modules are named after the recorded state_dict keys, so only the last part of a path changes: `kernel` and `scale`
are torch's `weight`, the statistics `running_mean` and `running_var`. The few modules with other names are in a table.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

_NAMES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
_MODULES = {"nddr.layer1.": "nddr.layer1_without_conv."}  # beginnings of whole keys, ours and torch's
_SHOWN = 50  # problems in an error
_COUNTER = "num_batches_tracked"  # torch counts batches where momentum is None; nothing reads it here
_TO_TORCH = {4: (3, 2, 0, 1), 2: (1, 0)}  # [kh, kw, in, out] -> [out, in, kh, kw]; [in, out] -> [out, in]
_FROM_TORCH = {4: (2, 3, 1, 0), 2: (1, 0)}


def _variables(model: nnx.Module) -> Iterator[tuple[str, nnx.Variable]]:
    """(torch key, variable) of every parameter and running statistic."""
    for path, variable in nnx.iter_graph(model):
        if isinstance(variable, nnx.Param | nnx.BatchStat):
            yield _torch_key(path), variable


def _torch_key(path: Sequence[Any]) -> str:
    key = ".".join(map(str, (*path[:-1], _NAMES.get(str(path[-1]), path[-1]))))
    for ours, torchs in _MODULES.items():
        if key.startswith(ours):
            return torchs + key.removeprefix(ours)
    return key


def to_torch(model: nnx.Module) -> dict[str, np.ndarray]:
    """{torch key: array in torch's layout} of all parameters and running statistics.

    torch's `num_batches_tracked` counters are left out; `load_state_dict(strict=True)` accepts that.
    """
    arrays = {}
    for key, variable in _variables(model):
        value = np.asarray(variable[...])
        arrays[key] = np.ascontiguousarray(value.transpose(_TO_TORCH[value.ndim])) if value.ndim in _TO_TORCH else value
    return arrays


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
    variables = dict(_variables(model))
    problems = [f"unmatched: {key} {given[key].shape}" for key in given if key not in variables]
    problems += [f"unfilled: {key}" for key in variables if key not in given]
    pairs = []
    for key, variable in variables.items():
        if key not in given:
            continue
        value = given[key]
        if value.ndim in _FROM_TORCH:
            value = value.transpose(_FROM_TORCH[value.ndim])
        if value.shape != variable.shape:
            rank = len(variable.shape)
            expected = tuple(variable.shape[i] for i in _TO_TORCH.get(rank, range(rank)))
            problems.append(f"shape: {key} is {given[key].shape}, the model has {expected}")
        if value.dtype.kind != "f":
            problems.append(f"dtype: {key} is {value.dtype}, the model has {variable.dtype}")
        pairs.append((variable, value))
    if problems:
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        listed = "\n  ".join([*problems[:_SHOWN], *more])
        raise ValueError(f"the weights do not fit {type(model).__name__} ({len(problems)} problems):\n  {listed}")
    return pairs
