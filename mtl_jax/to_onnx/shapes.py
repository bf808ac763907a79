"""Operations that move, repeat and select elements."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mtl_jax.to_onnx.graph import Graph, Shape, Value, dims, element_type
from mtl_jax.to_onnx.table import output_of, register, require, without


@register("broadcast_in_dim")
def _broadcast(graph: Graph, eqn: Any, operands: list[Value]) -> list[Value]:
    """Adds axes of one element; operators of ONNX repeat elements by themselves, and `Graph.whole` does."""
    value, places = operands[0], eqn.params["broadcast_dimensions"]
    result = output_of(eqn)
    held: list[int | str] = [1] * len(result.shape)
    for axis, place in enumerate(places):
        held[place] = value.held[axis]
    added = [axis for axis in range(len(held)) if axis not in places]
    if value.constant is not None:
        array = np.expand_dims(graph.plain(value).array, added)
        return [replace(result, held=tuple(held), constant=array)]
    if not added:
        return [replace(value, shape=result.shape)]
    return [graph.add("Unsqueeze", [graph.plain(value), graph.integers(added)], replace(result, held=tuple(held)))]


@register("squeeze")
def _squeeze(graph: Graph, eqn: Any, operands: list[Value]) -> list[Value]:
    gone = [axis % len(operands[0].shape) for axis in eqn.params["dimensions"]]
    return [_squeezed(graph, operands[0], output_of(eqn), gone)]


def _squeezed(graph: Graph, value: Value, result: Value, gone: Sequence[int]) -> Value:
    """Returns an array without some axes of length 1."""
    places = graph.integers([value.place(axis) for axis in gone])
    return graph.add("Squeeze", [value, places], without(result, value, gone))


@register("reshape")
def _reshape(graph: Graph, eqn: Any, operands: list[Value]) -> list[Value]:
    require(eqn, eqn.params.get("dimensions") is None, "permutes axes")
    result = output_of(eqn)
    return [graph.add("Reshape", [graph.plain(graph.whole(operands[0])), graph.sides(result.shape)], result)]


@register("transpose")
def _transpose(graph: Graph, eqn: Any, operands: list[Value]) -> list[Value]:
    """Changes what the axes are called, and moves nothing."""
    (value,), moves = operands, eqn.params["permutation"]
    order = tuple(moves.index(axis) for axis in value.order)
    held = tuple(value.held[axis] for axis in moves)
    return [replace(value, shape=output_of(eqn).shape, order=order, held=held)]


@register("concatenate")
def _concatenate(graph: Graph, eqn: Any, operands: list[Value]) -> list[Value]:
    order = max(operands, key=lambda each: each.constant is None).order
    parts = [graph.ordered(graph.whole(each), order) for each in operands]
    return [graph.add("Concat", parts, output_of(eqn, order), axis=order.index(eqn.params["dimension"]))]


@register("stack")
def _stack(graph: Graph, eqn: Any, operands: list[Value]) -> list[Value]:
    axis, result = eqn.params["axis"], output_of(eqn)
    at = graph.integers([axis])
    parts = [graph.node("Unsqueeze", [graph.tensor(graph.plain(graph.whole(each))), at]) for each in operands]
    return [graph.add("Concat", parts, result, axis=axis)]


@register("slice")
def _slice(graph: Graph, eqn: Any, operands: list[Value]) -> list[Value]:
    steps = eqn.params["strides"] or (1,) * len(operands[0].shape)
    limits = zip(eqn.params["start_indices"], eqn.params["limit_indices"], steps, strict=True)
    return [_cut(graph, operands[0], output_of(eqn).shape, list(limits))]


@register("gather")
def _gather(graph: Graph, eqn: Any, operands: list[Value]) -> list[Value]:
    """Converts gathering at known places, as which JAX traces slices of arrays that have a side of any length."""
    (value, indices), numbers, sizes = operands, eqn.params["dimension_numbers"], dims(eqn.params["slice_sizes"])
    require(eqn, indices.constant is not None, "gathers at places that depend on the images")
    gone, result = numbers.collapsed_slice_dims, output_of(eqn)
    starts = dict(zip(numbers.start_index_map, np.moveaxis(graph.plain(indices).array, -1, 0), strict=True))
    varying = [axis for axis, places in starts.items() if (places != places.flat[0]).any()]
    require(eqn, set(varying) <= set(gone) and (bool(varying) or indices.array.ndim == 1), "gathers several windows")
    limits: list[tuple[Any, Any, int]] = [(0, side, 1) for side in value.shape]
    for axis in set(starts) - set(varying):
        first = int(starts[axis].flat[0])
        limits[axis] = (first, first + eqn.params["slice_sizes"][axis], 1)
    part = _cut(graph, value, tuple(value.shape[a] if a in varying else sizes[a] for a in range(len(sizes))), limits)
    if not varying:
        return [_squeezed(graph, part, result, gone) if gone else part]
    columns = [starts[axis] if axis in varying else np.zeros_like(starts[varying[0]]) for axis in gone]
    part = graph.ordered(graph.whole(part), (*gone, *(axis for axis in range(len(sizes)) if axis not in gone)))
    order = (*(axis for axis in range(len(result.shape)) if axis not in numbers.offset_dims), *numbers.offset_dims)
    places = graph.array(np.stack(columns, axis=-1).astype(np.int64))
    return [graph.add("GatherND", [part, places], replace(result, order=order))]


@register("dim_as_value")
def _free_side(graph: Graph, eqn: Any, operands: list[Value]) -> list[Value]:
    result = output_of(eqn)
    length = graph.add("Cast", [graph.length], result, to=element_type(result.dtype))
    return [graph.add("Squeeze", [length], result)]


@register("split")
def _split(graph: Graph, eqn: Any, operands: list[Value]) -> list[Value]:
    (value,), axis, start, parts = operands, eqn.params["axis"], 0, []
    for size in eqn.params["sizes"]:
        limits: list[Any] = [(0, side, 1) for side in value.shape]
        limits[axis] = (start, start + size, 1)
        shape = (*value.shape[:axis], size, *value.shape[axis + 1 :])
        parts.append(_cut(graph, value, shape, limits))
        start += size
    return parts


@register("rev")
def _reverse(graph: Graph, eqn: Any, operands: list[Value]) -> list[Value]:
    (value,) = operands
    axes = [axis for axis in eqn.params["dimensions"] if value.held[axis] != 1]
    places, last = [value.place(axis) for axis in axes], [-1] * len(axes)
    ends = [np.iinfo(np.int64).min + 1] * len(axes)
    return [graph.add("Slice", [value, *map(graph.integers, (last, ends, places, last))], value)]


def _cut(graph: Graph, value: Value, shape: Shape, limits: Sequence[tuple[Any, Any, int]]) -> Value:
    """Returns part of an array.

    Args:
        graph: The graph.
        value: The array.
        shape: Shape of the part.
        limits: (start, end, step) for each axis.
    """
    everything = [(0, side, 1) for side in value.shape]
    wanted = [(*dims(each[:2]), each[2]) for each in limits]
    cut = [axis for axis in range(len(shape)) if value.held[axis] != 1 and wanted[axis] != everything[axis]]
    held = tuple(1 if value.held[axis] == 1 else shape[axis] for axis in range(len(shape)))
    like = replace(value, shape=shape, held=held)
    if not cut:
        return like
    starts, ends, steps = zip(*(limits[axis] for axis in cut), strict=True)
    places = [value.place(axis) for axis in cut]
    return graph.add("Slice", [value, *map(graph.integers, (starts, ends, places, steps))], like)


@register("pad")
def _pad(graph: Graph, eqn: Any, operands: list[Value]) -> list[Value]:
    (value, padding), config = operands, eqn.params["padding_config"]
    require(eqn, all(interior == 0 for _, _, interior in config), "pads between elements")
    require(eqn, all(min(low, high) >= 0 for low, high, _ in config), "pads by a negative number")
    value = graph.whole(value)
    before, after = ([config[axis][side] for axis in value.order] for side in (0, 1))
    like = output_of(eqn, value.order)
    return [graph.add("Pad", [value, graph.integers([*before, *after]), graph.tensor(padding)], like)]
