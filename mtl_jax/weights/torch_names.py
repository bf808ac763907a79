"""NNX state <-> arrays named and laid out as in a torch state_dict.

The modules are named after the recorded state_dict keys, so only the last part of a path changes: `kernel` and `scale`
are torch's `weight`, the statistics `running_mean` and `running_var`.
"""

from collections.abc import Iterator, Mapping

import jax.numpy as jnp
import numpy as np
from flax import nnx

_NAMES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
_COUNTER = "num_batches_tracked"  # torch counts batches where momentum is None; nothing reads it here
_TO_TORCH = {4: (3, 2, 0, 1), 2: (1, 0)}  # [kh, kw, in, out] -> [out, in, kh, kw]; [in, out] -> [out, in]
_FROM_TORCH = {4: (2, 3, 1, 0), 2: (1, 0)}


def _variables(model: nnx.Module) -> Iterator[tuple[str, nnx.Variable]]:
    """(torch key, variable) of every parameter and running statistic."""
    for path, variable in nnx.iter_graph(model):
        if isinstance(variable, nnx.Param | nnx.BatchStat):
            yield ".".join(map(str, (*path[:-1], _NAMES.get(str(path[-1]), path[-1])))), variable


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
        ValueError: keys without a place in the model, places without a key, or other shapes: all of them are listed.
            The model is then unchanged.
    """
    given = {key: np.asarray(value) for key, value in arrays.items() if not key.endswith(_COUNTER)}
    variables = dict(_variables(model))
    problems = [f"unmatched: {key} {given[key].shape}" for key in given if key not in variables]
    problems += [f"unfilled: {key}" for key in variables if key not in given]
    values = {}
    for key, variable in variables.items():
        if key not in given:
            continue
        value = given[key]
        if value.ndim in _FROM_TORCH:
            value = value.transpose(_FROM_TORCH[value.ndim])
        if value.shape != variable.shape:
            expected = tuple(variable.shape[i] for i in _TO_TORCH.get(value.ndim, range(len(variable.shape))))
            problems.append(f"shape: {key} is {given[key].shape}, the model has {expected}")
        values[key] = value
    if problems:
        raise ValueError(
            f"the weights do not fit {type(model).__name__} ({len(problems)} problems):\n  " + "\n  ".join(problems)
        )
    for key, value in values.items():
        variables[key][...] = jnp.asarray(value, dtype=variables[key].dtype)
