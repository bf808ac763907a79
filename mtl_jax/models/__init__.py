"""Models: one file per method; `build` makes one from a configuration."""

from mtl_jax.models.base import MultiTaskModel, evaluation_view, training_view
from mtl_jax.models.build import FUSIONS, MODELS, build

__all__ = ["FUSIONS", "MODELS", "MultiTaskModel", "build", "evaluation_view", "training_view"]
