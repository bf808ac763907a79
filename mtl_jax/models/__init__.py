"""Models: one file per method; `build` makes one from a configuration."""

from mtl_jax.models.build import MODELS, build

__all__ = ["MODELS", "build"]
