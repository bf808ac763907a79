"""Runs a traced function operation by operation, with NumPy for the plain ones.

XLA needs tens of seconds to compile a network in float64 that runs three times, and most of a minute for its operations
one by one: a network has hundreds of them, because every shape is a program of its own. The trace is jax's, with its
derivatives. Arithmetic, copies, sums and products of matrices are computed by NumPy, which compiles nothing;
convolutions, pooling and what else the table below does not know are computed by XLA.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend.core import Jaxpr, Literal


def interpret(function: Callable) -> Callable:
    """Returns a function of arrays that is traced once for every set of shapes and run operation by operation."""
    traced: dict = {}

    def run(*args):
        leaves, structure = jax.tree.flatten(args)
        key = structure, *((leaf.shape, leaf.dtype) for leaf in leaves)
        if key not in traced:
            traced[key] = jax.make_jaxpr(function, return_shape=True)(*args)
        closed, out = traced[key]
        with np.errstate(all="ignore"):  # infinities and NaN are values, as in XLA
            return jax.tree.unflatten(jax.tree.structure(out), _evaluate(closed.jaxpr, closed.consts, leaves))

    return run


def _evaluate(jaxpr: Jaxpr, constants: Any, args: Any) -> list:
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*constants, *args), strict=True))
    last_use = {x: i for i, eqn in enumerate(jaxpr.eqns) for x in _variables(*eqn.invars, *eqn.outvars)}
    last_use |= dict.fromkeys(_variables(*jaxpr.outvars), len(jaxpr.eqns))

    def read(x):
        return np.asarray(x.val, jax.typeof(x.val).dtype) if isinstance(x, Literal) else values[x]

    for i, eqn in enumerate(jaxpr.eqns):
        values |= zip(eqn.outvars, _apply(eqn, [read(x) for x in eqn.invars]), strict=True)
        for x in _variables(*eqn.invars, *eqn.outvars):  # a network's arrays don't fit into memory all at once
            if last_use[x] == i:
                del values[x]
    return [read(x) for x in jaxpr.outvars]


def _variables(*atoms: Any) -> set:
    return {x for x in atoms if not isinstance(x, Literal)}


def _apply(eqn: Any, args: list) -> list:
    if (key := _CALLS.get(eqn.primitive.name)) is not None:
        return _evaluate(eqn.params[key].jaxpr, eqn.params[key].consts, args)
    if (rule := _RULES.get(eqn.primitive.name)) is not None:
        result = rule(*map(np.asarray, args), **eqn.params)
    else:
        result = eqn.primitive.bind(*args, **eqn.params)
    return list(result) if eqn.primitive.multiple_results else [result]


def _elementwise(ufunc: Callable) -> Callable:
    return lambda *args, **_: ufunc(*args)


def _broadcast(x, *, shape, broadcast_dimensions, sharding):
    expanded = [1] * len(shape)
    for axis, size in zip(broadcast_dimensions, x.shape, strict=True):
        expanded[axis] = size
    return np.broadcast_to(x.reshape(expanded), shape)


def _slice(x, *, start_indices, limit_indices, strides):
    strides = strides or (1,) * x.ndim
    return x[tuple(map(slice, start_indices, limit_indices, strides))]


def _pad(x, value, *, padding_config):
    """Pads outside and between elements; a negative number of elements outside cuts."""
    low, high, between = np.transpose(padding_config)
    shape = np.asarray(x.shape)
    spread = np.full(shape + np.maximum(shape - 1, 0) * between, value)
    spread[tuple(slice(None, None, step + 1) for step in between)] = x
    padded = np.pad(spread, list(zip(low.clip(0), high.clip(0), strict=True)), constant_values=value)
    return padded[tuple(slice(max(-a, 0), n - max(-b, 0)) for a, b, n in zip(low, high, padded.shape, strict=True))]


def _split(x, *, sizes, axis):
    return np.split(x, np.cumsum(sizes)[:-1], axis)


def _dot(a, b, *, dimension_numbers, **_):
    """Returns `[batch, free axes of a, free axes of b]`."""
    (sums_a, sums_b), (batch_a, batch_b) = dimension_numbers
    free_a, free_b = (
        [axis for axis in range(x.ndim) if axis not in bound]
        for x, bound in ((a, (*sums_a, *batch_a)), (b, (*sums_b, *batch_b)))
    )
    batch, rows, columns = ([x.shape[axis] for axis in axes] for x, axes in ((a, batch_a), (a, free_a), (b, free_b)))
    sums = math.prod(a.shape[axis] for axis in sums_a)
    a = a.transpose(*batch_a, *free_a, *sums_a).reshape(*batch, math.prod(rows), sums)
    b = b.transpose(*batch_b, *sums_b, *free_b).reshape(*batch, sums, math.prod(columns))
    return (a @ b).reshape(*batch, *rows, *columns)


# {calls of other traced functions: the parameter that has them}
_CALLS = {"jit": "jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}

_RULES: dict[str, Callable] = {
    name: _elementwise(function)
    for name, function in {
        "abs": np.abs,
        "add": np.add,
        "add_any": np.add,
        "and": np.bitwise_and,
        "div": lambda a, b: np.divide(a, b, dtype=a.dtype),  # whole numbers, which XLA divides otherwise, are refused
        "eq": np.equal,
        "exp": np.exp,
        "ge": np.greater_equal,
        "gt": np.greater,
        "le": np.less_equal,
        "log": np.log,
        "log1p": np.log1p,
        "lt": np.less,
        "max": np.maximum,
        "min": np.minimum,
        "mul": np.multiply,
        "ne": np.not_equal,
        "neg": np.negative,
        "rsqrt": lambda x: 1 / np.sqrt(x),
        "select_n": lambda which, off, on: np.where(which, on, off),
        "sqrt": np.sqrt,
        "square": np.square,
        "stop_gradient": lambda x: x,
        "sub": np.subtract,
    }.items()
} | {
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda *args, dimension: np.concatenate(args, dimension),
    "convert_element_type": lambda x, *, new_dtype, **_: x.astype(new_dtype),
    "dot_general": _dot,
    "integer_pow": lambda x, *, y: x**y,
    "pad": _pad,
    "reduce_max": lambda x, *, axes, **_: x.max(tuple(axes)),
    "reduce_sum": lambda x, *, axes, **_: x.sum(tuple(axes), x.dtype),
    "reshape": lambda x, *, new_sizes, **_: x.reshape(new_sizes),
    "rev": lambda x, *, dimensions: np.flip(x, dimensions),
    "slice": _slice,
    "split": _split,
    "squeeze": lambda x, *, dimensions: np.squeeze(x, tuple(dimensions)),
    "transpose": lambda x, *, permutation: x.transpose(permutation),
}
