"""Heads: feature maps to logits."""

from mtl_jax.heads.hrnet import HRNetHead

__all__ = ["HRNetHead"]
