"""Weights under torch's names: reading pretrained files and exporting models."""

from mtl_jax.weights.array_files import WRITABLE, read_arrays, write_arrays
from mtl_jax.weights.prefixes import fit_names, strip_prefix
from mtl_jax.weights.pretrained import read_pretrained
from mtl_jax.weights.torch_names import check_torch, load_torch, register_layout, to_torch, torch_keys

__all__ = [
    "WRITABLE",
    "check_torch",
    "fit_names",
    "load_torch",
    "read_arrays",
    "read_pretrained",
    "register_layout",
    "strip_prefix",
    "to_torch",
    "torch_keys",
    "write_arrays",
]
