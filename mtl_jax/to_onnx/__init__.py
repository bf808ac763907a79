"""Conversion of JAX functions for inference to ONNX models.

`to_model` traces a function and writes its operations as those of ONNX; `OPERATORS` is the table from one to the other,
which code outside of the package may extend. Only this folder needs the package `onnx`.
"""

from mtl_jax.to_onnx import elements, reductions, shapes, windows
from mtl_jax.to_onnx.convert import IR_VERSION, OPSET, to_model
from mtl_jax.to_onnx.graph import Graph, Value
from mtl_jax.to_onnx.table import OPERATORS, Converter, UnsupportedError
from mtl_jax.to_onnx.windows import resize_aligned, resize_linear

__all__ = [
    "IR_VERSION",
    "OPERATORS",
    "OPSET",
    "Converter",
    "Graph",
    "UnsupportedError",
    "Value",
    "elements",
    "reductions",
    "resize_aligned",
    "resize_linear",
    "shapes",
    "to_model",
    "windows",
]
