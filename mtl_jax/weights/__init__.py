"""Weights under torch's names: reading pretrained files and exporting models."""

from mtl_jax.weights.array_files import WRITABLE, read_arrays, write_arrays
from mtl_jax.weights.pretrained import read_pretrained
from mtl_jax.weights.torch_names import check_torch, load_torch, register_layout, to_torch

__all__ = [
    "WRITABLE",
    "check_torch",
    "load_torch",
    "read_arrays",
    "read_pretrained",
    "register_layout",
    "to_torch",
    "write_arrays",
]
