"""Weights under torch's names: the way in for pretrained files and the way out for models trained here."""

from mtl_jax.weights.pretrained import load_pretrained, pretrained_path, read_arrays
from mtl_jax.weights.torch_names import load_torch, to_torch

__all__ = ["load_pretrained", "load_torch", "pretrained_path", "read_arrays", "to_torch"]
