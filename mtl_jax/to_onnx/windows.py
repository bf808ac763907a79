"""Convolutions, products of matrices, pooling and interpolation."""

import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtl_jax.to_onnx.graph import Graph, Value, constant
from mtl_jax.to_onnx.table import output_of, register, require


@register("conv_general_dilated")
def _convolve(graph: Graph, eqn: Any, operands: list[Value]) -> list[Value]:
    params, numbers = eqn.params, eqn.params["dimension_numbers"]
    require(eqn, set(params["lhs_dilation"]) == {1}, "is a transposed convolution")
    require(eqn, params["batch_group_count"] == 1, "has groups of the batch")
    require(eqn, all(min(pair) >= 0 for pair in params["padding"]), "pads by a negative number")
    images, kernel = (graph.whole(each) for each in operands)
    attributes = {
        "strides": params["window_strides"],
        "dilations": params["rhs_dilation"],
        "pads": [pair[side] for side in (0, 1) for pair in params["padding"]],
        "group": params["feature_group_count"],
    }
    inputs = [graph.ordered(images, numbers.lhs_spec), graph.ordered(kernel, numbers.rhs_spec)]
    return [graph.add("Conv", inputs, output_of(eqn, tuple(numbers.out_spec)), **attributes)]


@register("dot_general")
def _dot(graph: Graph, eqn: Any, operands: list[Value]) -> list[Value]:
    (contracted, batched) = eqn.params["dimension_numbers"]
    left, right = (graph.whole(each) for each in operands)
    if contracted == ((3,), (0,)) and not batched[0] and len(left.shape) == 4 and len(right.shape) == 2:
        # A product with the channels of images is a convolution with a kernel of one pixel.
        kernel = graph.ordered(right, (1, 0))
        if kernel.constant is not None:
            weights = constant(kernel.constant[:, :, None, None])
            return [graph.add("Conv", [graph.ordered(left, (0, 3, 1, 2)), weights], output_of(eqn, (0, 3, 1, 2)))]
    if contracted == ((1,), (0,)) and not batched[0] and len(left.shape) == len(right.shape) == 2:
        return [graph.add("MatMul", [graph.plain(left), graph.plain(right)], output_of(eqn))]
    equation = _equation(len(left.shape), len(right.shape), contracted, batched)
    return [graph.add("Einsum", [graph.plain(left), graph.plain(right)], output_of(eqn), equation=equation)]


def _equation(left: int, right: int, contracted: Sequence[Any], batched: Sequence[Any]) -> str:
    """Returns a product in Einstein's notation.

    The result has the common axes that are kept, then those of the left operand alone, then those of the right one.

    Args:
        left: Number of axes of the left operand.
        right: Number of axes of the right operand.
        contracted: Axes of the left and axes of the right operand that are summed over.
        batched: Axes of the left and axes of the right operand that are common and kept.
    """
    letters = iter(string.ascii_lowercase)
    first = [next(letters) for _ in range(left)]
    same = dict(zip((*contracted[1], *batched[1]), (*contracted[0], *batched[0]), strict=True))
    second = [first[same[axis]] if axis in same else next(letters) for axis in range(right)]
    common = [first[axis] for axis in batched[0]]
    rest = [letter for axis, letter in enumerate(first) if axis not in (*contracted[0], *batched[0])]
    rest += [letter for axis, letter in enumerate(second) if axis not in same]
    return f"{''.join(first)},{''.join(second)}->{''.join(common + rest)}"


@register("reduce_window_max")
def _max_pool(graph: Graph, eqn: Any, operands: list[Value]) -> list[Value]:
    order, attributes = _window(eqn, operands[0])
    dilations = [eqn.params["window_dilation"][axis] for axis in order[2:]]
    images = graph.ordered(graph.whole(operands[0]), order)
    return [graph.add("MaxPool", [images], output_of(eqn, order), dilations=dilations, **attributes)]


@register("reduce_window_sum")
def _sum_pool(graph: Graph, eqn: Any, operands: list[Value]) -> list[Value]:
    require(eqn, set(eqn.params["window_dilation"]) == {1}, "has dilated windows")
    order, attributes = _window(eqn, operands[0])
    images = graph.ordered(graph.whole(operands[0]), order)
    like = output_of(eqn, order)
    mean = graph.add("AveragePool", [images], like, count_include_pad=1, **attributes)
    size = np.array(np.prod(attributes["kernel_shape"]), like.dtype)
    return [graph.add("Mul", [mean, constant(size)], like)]


def _window(eqn: Any, value: Value) -> tuple[tuple[int, ...], Mapping[str, list[int]]]:
    """Returns the order of axes in which windows lie over the last ones, and the attributes of the windows."""
    params = eqn.params
    lengths, strides, padding = params["window_dimensions"], params["window_strides"], params["padding"]
    over = [axis for axis in range(len(lengths)) if (lengths[axis], strides[axis], *padding[axis]) != (1, 1, 0, 0)]
    require(eqn, len(value.shape) == 4 and len(over) <= 2, "has windows that are not over height and width")
    require(eqn, set(params["base_dilation"]) == {1}, "has dilated operands")
    over += [axis for axis in (2, 1, 3) if axis not in over][: 2 - len(over)]
    over.sort()
    order = (*(axis for axis in range(4) if axis not in over), *over)
    attributes = {
        "kernel_shape": [lengths[axis] for axis in over],
        "strides": [strides[axis] for axis in over],
        "pads": [padding[axis][side] for side in (0, 1) for axis in over],
    }
    return order, attributes


def resize_linear(graph: Graph, eqn: Any, operands: list[Value]) -> list[Value]:
    """Converts a function that resizes `[B, H, W, C]` bilinearly with half-pixel centres, edges clamped."""
    return _resize(graph, eqn, operands, "half_pixel")


def resize_aligned(graph: Graph, eqn: Any, operands: list[Value]) -> list[Value]:
    """Converts a function that resizes `[B, H, W, C]` bilinearly so that corners stay corners."""
    return _resize(graph, eqn, operands, "align_corners")


def _resize(graph: Graph, eqn: Any, operands: list[Value], coordinates: str) -> list[Value]:
    images, order = graph.ordered(graph.whole(operands[0]), (0, 3, 1, 2)), (0, 3, 1, 2)
    result = output_of(eqn, order)
    sizes = graph.sides([result.shape[axis] for axis in order])
    attributes = {"mode": "linear", "coordinate_transformation_mode": coordinates}
    return [graph.add("Resize", [images, "", "", sizes], result, **attributes)]
