"""Operations on the corresponding elements of arrays."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mtl_jax.to_onnx.graph import Graph, Value, constant, element_type
from mtl_jax.to_onnx.table import OPERATORS, Converter, output_of, register, require


def _elementwise(operator: str, **attributes: Any) -> Converter:
    """Returns the converter of an operation on the corresponding elements of its operands."""

    def convert(graph: Graph, eqn: Any, operands: list[Value]) -> list[Value]:
        aligned, like = _aligned(graph, eqn, operands)
        return [graph.add(operator, aligned, like, **attributes)]

    return convert


def _aligned(graph: Graph, eqn: Any, operands: Sequence[Value]) -> tuple[list[Value], Value]:
    """Returns the operands in one order of their axes, and the description of the result.

    Numbers without axes stay as they are. The order is that of an operand that need not be moved, if there is one.
    """
    result = output_of(eqn)
    full = [each for each in operands if len(each.shape) == len(result.shape)]
    best = max(full, key=lambda each: (each.constant is None, each.is_whole)) if full else result
    aligned = [graph.ordered(each, best.order) if len(each.shape) == len(best.order) else each for each in operands]
    held = tuple(_longest(sides) for sides in zip(*(each.held for each in full), strict=True))
    return aligned, replace(result, order=best.order, held=held)


def _longest(sides: Sequence[int | str]) -> int | str:
    return next((side for side in sides if side != 1), 1)


for _name, _operator in {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "min": "Min",
    "pow": "Pow",
    "neg": "Neg",
    "abs": "Abs",
    "sign": "Sign",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "tanh": "Tanh",
    "sin": "Sin",
    "cos": "Cos",
    "erf": "Erf",
    "floor": "Floor",
    "ceil": "Ceil",
    "logistic": "Sigmoid",
    "eq": "Equal",
    "lt": "Less",
    "le": "LessOrEqual",
    "gt": "Greater",
    "ge": "GreaterOrEqual",
}.items():
    OPERATORS.register(_name, _elementwise(_operator))


@register("max")
def _max(graph: Graph, eqn: Any, operands: list[Value]) -> list[Value]:
    rest = [each for each in operands if each.constant is None or each.constant.any() or each.constant.size != 1]
    if len(rest) == 1 and rest[0].shape == output_of(eqn).shape and np.issubdtype(rest[0].dtype, np.floating):
        return [graph.add("Relu", rest, rest[0])]  # the greater of an element and 0
    return _elementwise("Max")(graph, eqn, operands)


def _logical(operator: str) -> Converter:
    """Returns the converter of a logical operation, which is one on bits for numbers."""

    def convert(graph: Graph, eqn: Any, operands: list[Value]) -> list[Value]:
        require(eqn, operands[0].dtype == np.bool_, "works on bits")
        return _elementwise(operator)(graph, eqn, operands)

    return convert


OPERATORS.register("and", _logical("And"))
OPERATORS.register("or", _logical("Or"))
OPERATORS.register("not", _logical("Not"))


@register("ne")
def _differ(graph: Graph, eqn: Any, operands: list[Value]) -> list[Value]:
    return _elementwise("Not")(graph, eqn, _elementwise("Equal")(graph, eqn, operands))


@register("rem")
def _remainder(graph: Graph, eqn: Any, operands: list[Value]) -> list[Value]:
    return _elementwise("Mod", fmod=1)(graph, eqn, operands)  # has the sign of the dividend


@register("erfc")
def _complementary_error_function(graph: Graph, eqn: Any, operands: list[Value]) -> list[Value]:
    one = constant(np.array(1, operands[0].dtype))
    return _elementwise("Sub")(graph, eqn, [one, *_elementwise("Erf")(graph, eqn, operands)])


@register("rsqrt")
def _rsqrt(graph: Graph, eqn: Any, operands: list[Value]) -> list[Value]:
    root = _elementwise("Sqrt")(graph, eqn, operands)
    return _elementwise("Reciprocal")(graph, eqn, root)


@register("square")
def _square(graph: Graph, eqn: Any, operands: list[Value]) -> list[Value]:
    return _elementwise("Mul")(graph, eqn, operands * 2)


@register("integer_pow")
def _integer_pow(graph: Graph, eqn: Any, operands: list[Value]) -> list[Value]:
    exponent = constant(np.array(eqn.params["y"], operands[0].dtype))
    return _elementwise("Pow")(graph, eqn, [*operands, exponent])


@register("select_n")
def _select(graph: Graph, eqn: Any, operands: list[Value]) -> list[Value]:
    require(eqn, len(operands) == 3 and operands[0].dtype == np.bool_, "chooses among more than two arrays")
    where, otherwise, chosen = operands
    return _elementwise("Where")(graph, eqn, [where, chosen, otherwise])


@register("clamp")
def _clamp(graph: Graph, eqn: Any, operands: list[Value]) -> list[Value]:
    low, values, high = operands
    raised = _elementwise("Max")(graph, eqn, [values, low])
    return _elementwise("Min")(graph, eqn, [*raised, high])


@register("convert_element_type")
def _cast(graph: Graph, eqn: Any, operands: list[Value]) -> list[Value]:
    return _elementwise("Cast", to=element_type(np.dtype(eqn.params["new_dtype"])))(graph, eqn, operands)


@register("stop_gradient", "copy", "optimization_barrier")
def _identity(graph: Graph, eqn: Any, operands: list[Value]) -> list[Value]:
    return operands
