"""Operations that reduce axes."""

from typing import Any

from mtl_jax.to_onnx.graph import Graph, Value, element_type
from mtl_jax.to_onnx.table import OPERATORS, Converter, output_of, without


def _reduction(operator: str) -> Converter:
    """Returns the converter of a reduction over axes."""

    def convert(graph: Graph, eqn: Any, operands: list[Value]) -> list[Value]:
        value, axes = graph.whole(operands[0]), eqn.params["axes"]
        like = without(output_of(eqn), value, axes)
        places = graph.integers([value.place(axis) for axis in axes])
        return [graph.add(operator, [value, places], like, keepdims=0)]

    return convert


for _name, _operator in {
    "reduce_sum": "ReduceSum",
    "reduce_max": "ReduceMax",
    "reduce_min": "ReduceMin",
    "reduce_prod": "ReduceProd",
}.items():
    OPERATORS.register(_name, _reduction(_operator))


def _extreme(operator: str) -> Converter:
    """Returns the converter of the position of the greatest or least element, the first of several."""

    def convert(graph: Graph, eqn: Any, operands: list[Value]) -> list[Value]:
        (axis,) = eqn.params["axes"]
        value = graph.whole(operands[0])
        like = without(output_of(eqn), value, [axis])
        positions = graph.add(operator, [value], like, axis=value.place(axis), keepdims=0)
        return [graph.add("Cast", [positions], like, to=element_type(like.dtype))]

    return convert


OPERATORS.register("argmax", _extreme("ArgMax"))
OPERATORS.register("argmin", _extreme("ArgMin"))
