"""Tracing of a JAX function, and its ONNX model."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from jax.extend import core
from onnx import helper

from mtl_jax.to_onnx.graph import Graph, Value, constant, dims, tensor_info
from mtl_jax.to_onnx.table import OPERATORS, Converter, UnsupportedError, operand_types

OPSET, IR_VERSION = 18, 8  # of ONNX 1.13
# {operation that calls a function: parameter with the function's operations}
_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
}

# What the first makes of a constant is long; the second has no operands, and its result is no constant.
_NEVER_COMPUTED = ("broadcast_in_dim", "dim_as_value")


def to_model(
    function: Callable[[jax.Array], Mapping[str, jax.Array]],
    argument: jax.ShapeDtypeStruct,
    outputs: Sequence[str],
    *,
    name: str,
    calls: Mapping[str, Converter],
) -> onnx.ModelProto:
    """Returns the ONNX model of a function from an array to arrays, `{name: array}`.

    Operations on constants alone are computed now. Sides of the argument may be symbolic, all by the same name, which
    the model's input and outputs then have.

    Args:
        function: The function.
        argument: Shape and type of its argument.
        outputs: Names of the outputs in the order that the model has them.
        name: Name of the input.
        calls: {name of a jitted function: its converter}, for functions that ONNX has an operator for.

    Raises:
        UnsupportedError: The function has an operation that `OPERATORS` lacks, or that works in a way which ONNX does
            not know.
    """
    traced, shapes = jax.make_jaxpr(function, return_shape=True)(argument)
    shape, dtype = dims(argument.shape), np.dtype(argument.dtype)
    graph = Graph()
    if symbolic := [axis for axis, side in enumerate(shape) if isinstance(side, str)]:
        if len({shape[axis] for axis in symbolic}) > 1:
            raise UnsupportedError(f"the argument has the shape {shape}; only one side of an ONNX model may be free")
        graph.free = str(shape[symbolic[0]])
        graph.length = graph.node("Shape", [name], start=symbolic[0], end=symbolic[0] + 1)
    image = Value(shape, dtype, tuple(range(len(shape))), shape, name)
    results = _Walk(graph, calls).closed(traced, [image])
    names = jax.tree.leaves({key: key for key in shapes})  # the order in which JAX flattens the dict
    for key, value in zip(names, results, strict=True):
        final = graph.tensor(graph.plain(graph.whole(value)))
        graph.nodes.append(helper.make_node("Identity", [final], [key], f"output_{key}"))
    declared = {key: tensor_info(key, value.shape, value.dtype) for key, value in zip(names, results, strict=True)}
    content = helper.make_graph(
        graph.nodes,
        "predict",
        [tensor_info(name, shape, dtype)],
        [declared[key] for key in outputs],
        list(graph.initializers.values()),
    )
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(content, opset_imports=[opset], ir_version=IR_VERSION, producer_name="mtl_jax")


class _Walk:
    """Converts the operations of a traced function one after another."""

    def __init__(self, graph: Graph, calls: Mapping[str, Converter]):
        self.graph, self.calls = graph, calls
        self.device = jax.local_devices(backend="cpu")[0]

    def closed(self, closed: Any, operands: Sequence[Value]) -> list[Value]:
        """Returns the results of a function, `ClosedJaxpr`, or `Jaxpr` without constants."""
        jaxpr = getattr(closed, "jaxpr", closed)
        constants = [constant(np.asarray(each)) for each in getattr(closed, "consts", ())]
        values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*constants, *operands), strict=True))
        for eqn in jaxpr.eqns:
            results = self._convert(eqn, [_read(values, each) for each in eqn.invars])
            values.update(zip(eqn.outvars, results, strict=True))
        return [_read(values, each) for each in jaxpr.outvars]

    def _convert(self, eqn: Any, operands: list[Value]) -> list[Value]:
        name = eqn.primitive.name
        known = all(each.constant is not None for each in operands)
        if name in _CALLS:
            special = self.calls.get(eqn.params.get("name", ""))
            if special is not None and not known:
                return special(self.graph, eqn, operands)
            return self.closed(eqn.params[_CALLS[name]], operands)
        for variable in eqn.outvars:
            self._check_free_sides(name, variable.aval.shape)
        if known and name not in _NEVER_COMPUTED and all(_is_fixed(var.aval.shape) for var in eqn.outvars):
            return self._compute(eqn, operands)
        if name not in OPERATORS:
            raise UnsupportedError(
                f"the model has an operation {name!r} of {operand_types(eqn)}, which the ONNX export does not know. "
                "Export the model in the format 'jax', or add a converter to mtl_jax.to_onnx.OPERATORS; it "
                f"has {', '.join(sorted(OPERATORS))}"
            )
        return OPERATORS[name](self.graph, eqn, operands)

    def _check_free_sides(self, name: str, shape: Sequence[Any]) -> None:
        if other := [side for side in dims(shape) if isinstance(side, str) and side != self.graph.free]:
            raise UnsupportedError(
                f"an operation {name!r} of the model makes an array of {other[0]} elements, which the ONNX export does "
                f"not know; export the model for one batch size instead of any, {self.graph.free!r}"
            )

    def _compute(self, eqn: Any, operands: Sequence[Value]) -> list[Value]:
        """Returns the results of an operation on constants."""
        arrays = [
            jnp.asarray(np.broadcast_to(self.graph.plain(value).array, atom.aval.shape))
            for atom, value in zip(eqn.invars, operands, strict=True)
        ]
        with jax.default_device(self.device):
            computed = eqn.primitive.bind(*arrays, **eqn.params)
        results = computed if eqn.primitive.multiple_results else [computed]
        return [constant(np.asarray(each)) for each in results]


def _read(values: Mapping[Any, Value], atom: Any) -> Value:
    """Returns the value of a variable or of a number in the program."""
    dtype = atom.aval.dtype
    return constant(np.asarray(atom.val, dtype)) if isinstance(atom, core.Literal) else values[atom]


def _is_fixed(shape: Sequence[Any]) -> bool:
    return all(isinstance(side, int) for side in shape)
