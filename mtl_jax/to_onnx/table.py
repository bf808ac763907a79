"""The table from the operations of JAX programs to operators of ONNX, and what its entries share.

A converter takes the graph, the operation with its parameters, and the operands; it returns the results. The modules
`elements`, `shapes`, `reductions` and `windows` hold the converters there are.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mtl_jax.registry import Registry
from mtl_jax.to_onnx.graph import Graph, Shape, Value, dims

Converter = Callable[[Graph, Any, list[Value]], list[Value]]  # graph, operation (`JaxprEqn`), operands -> results

OPERATORS: Registry[Converter] = Registry("operation", "operations", "mtl_jax.to_onnx.OPERATORS.register")
register = OPERATORS.decorator


class UnsupportedError(ValueError):
    """An operation of a model has no counterpart in ONNX here; the message names the operation."""


def require(eqn: Any, condition: bool, what: str) -> None:
    """Checks that an operation works in a way that ONNX knows.

    Args:
        eqn: The operation.
        condition: It does.
        what: What the operation does otherwise, for the message: "pads between elements".

    Raises:
        UnsupportedError: It does not.
    """
    if not condition:
        raise UnsupportedError(
            f"the model has an operation {eqn.primitive.name!r} of {operand_types(eqn)} that {what}, which the ONNX "
            "export does not know; export the model in the format 'jax'"
        )


def operand_types(eqn: Any) -> str:
    """Returns the types and shapes of an operation's operands as text."""
    return ", ".join(each.aval.str_short() for each in eqn.invars) or "no operand"


def output_of(eqn: Any, order: tuple[int, ...] | None = None, held: Shape | None = None) -> Value:
    """Returns the description of an operation's first result, without a tensor.

    Args:
        eqn: The operation.
        order: Order of the axes, see `Value`; None = as in the array.
        held: Shape of what is held; None = everything.
    """
    aval = eqn.outvars[0].aval
    shape = dims(aval.shape)
    plain = tuple(range(len(shape)))
    return Value(shape, np.dtype(aval.dtype), plain if order is None else order, shape if held is None else held)


def without(like: Value, value: Value, gone: Sequence[int]) -> Value:
    """Returns the description of a result that lacks some axes of an operand and has the others in its order.

    Args:
        like: Shape and type of the result.
        value: The operand.
        gone: Axes of the operand that the result lacks.
    """
    kept = [axis for axis in range(len(value.shape)) if axis not in gone]
    order = tuple(kept.index(axis) for axis in value.order if axis in kept)
    held = tuple(value.held[axis] for axis in kept)
    return Value(like.shape, like.dtype, order, held)
