"""An ONNX graph in the making, and the arrays of a JAX program as the graph holds them.

JAX programs here hold images as `[B, H, W, C]`, ONNX computes convolutions on `[B, C, H, W]`. A value therefore says
which of its axes each axis of its tensor is. Operations that work in any order of the axes keep the order, so that
images are transposed once at the input and predictions once at the end.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Shape = tuple[int | str, ...]  # a text names a side of any length


@dataclass(frozen=True)
class Value:
    """An array of the program: a tensor of the graph, or a constant that is not yet in the graph.

    Attributes:
        shape: Shape of the array.
        dtype: Type of the array.
        order: Axis of the array that each axis of the tensor or constant is: `(0, 3, 1, 2)` for an array `[B, H, W, C]`
            that is held as `[B, C, H, W]`.
        held: Shape of what is held, in the order of the array's axes. A side is 1 where one element stands for all.
        tensor: Name of the tensor; "" for a constant.
        constant: The constant.
    """

    shape: Shape
    dtype: np.dtype
    order: tuple[int, ...]
    held: Shape
    tensor: str = ""
    constant: np.ndarray | None = None

    @property
    def array(self) -> np.ndarray:
        """The constant, where the value is one."""
        if self.constant is None:
            raise TypeError(f"{self.tensor} is a tensor of the graph and has no known elements")
        return self.constant

    @property
    def is_whole(self) -> bool:
        """True if every element of the array is held."""
        return self.held == self.shape

    def place(self, axis: int) -> int:
        """Returns the axis of the tensor that is an axis of the array."""
        return self.order.index(axis)


def constant(array: np.ndarray, shape: Shape | None = None) -> Value:
    """Returns a constant.

    Args:
        array: The elements that are held.
        shape: Shape of the array, where `array` has a side 1 for elements that are all alike.
    """
    return Value(array.shape if shape is None else shape, array.dtype, tuple(range(array.ndim)), array.shape, "", array)


def dims(shape: Iterable[Any]) -> Shape:
    """Returns a shape with symbolic sides as text."""
    return tuple(side if isinstance(side, int) else str(side) for side in shape)


@dataclass
class Graph:
    """Nodes and initialisers of an ONNX graph.

    Attributes:
        free: Name of the side of arrays that may have any length, "" if none may.
        length: Name of the tensor with the length of that side, int64 `[1]`.
        nodes: The nodes.
        initializers: {name: tensor}.
    """

    free: str = ""
    length: str = ""
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: dict[str, onnx.TensorProto] = field(default_factory=dict)
    _names: dict[tuple[Any, ...], str] = field(default_factory=dict)
    _moved: dict[tuple[str, tuple[int, ...]], Value] = field(default_factory=dict)

    def node(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Adds a node, and returns the name of its output."""
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name, **attributes))
        return name

    def array(self, array: np.ndarray) -> str:
        """Returns the name of an initialiser with this content; equal arrays share one."""
        key = (array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).digest())
        if key not in self._names:
            self._names[key] = f"constant_{len(self.initializers)}"
            self.initializers[self._names[key]] = numpy_helper.from_array(
                np.ascontiguousarray(array).reshape(array.shape), self._names[key]
            )
        return self._names[key]

    def integers(self, values: Sequence[int]) -> str:
        """Returns the name of an initialiser with whole numbers, int64 `[N]`."""
        return self.array(np.array(values, np.int64))

    def tensor(self, value: Value) -> str:
        """Returns the name of the tensor of a value; a constant becomes an initialiser."""
        return value.tensor if value.constant is None else self.array(value.constant)

    def add(self, operator: str, inputs: Sequence[Value | str], like: Value, **attributes: Any) -> Value:
        """Adds a node, and returns its output.

        Args:
            operator: The operator of ONNX.
            inputs: Values, or names of tensors.
            like: Shape, type, order and held shape of the output.
            attributes: Attributes of the node.
        """
        names = [each if isinstance(each, str) else self.tensor(each) for each in inputs]
        return replace(like, tensor=self.node(operator, names, **attributes), constant=None)

    def ordered(self, value: Value, order: tuple[int, ...]) -> Value:
        """Returns a value whose tensor has its axes in this order."""
        if value.order == order:
            return value
        moves = tuple(value.place(axis) for axis in order)
        if value.constant is not None:
            return replace(value, order=order, constant=value.constant.transpose(moves))
        key = (value.tensor, order)
        if key not in self._moved:
            self._moved[key] = self.add("Transpose", [value], replace(value, order=order), perm=moves)
        return replace(value, order=order, tensor=self._moved[key].tensor)

    def plain(self, value: Value) -> Value:
        """Returns a value whose tensor has the axes of the array in their order."""
        return self.ordered(value, tuple(range(len(value.shape))))

    def whole(self, value: Value) -> Value:
        """Returns a value that holds every element."""
        if value.is_whole:
            return value
        shape = self.sides([value.shape[axis] for axis in value.order])
        return self.add("Expand", [value, shape], replace(value, held=value.shape))

    def sides(self, shape: Sequence[int | str]) -> str:
        """Returns the name of a tensor with a shape, int64 `[N]`."""
        if all(isinstance(side, int) for side in shape):
            return self.integers([side for side in shape if isinstance(side, int)])
        parts = [self.integers([side]) if isinstance(side, int) else self.length for side in shape]
        return self.node("Concat", parts, axis=0)


def element_type(dtype: np.dtype) -> int:
    """Returns the number that ONNX gives a type."""
    return helper.np_dtype_to_tensor_dtype(dtype)


def tensor_info(name: str, shape: Shape, dtype: np.dtype) -> onnx.ValueInfoProto:
    """Returns the declaration of an input or output."""
    return helper.make_tensor_value_info(name, element_type(dtype), list(shape))
