"""Models: one file per method; `build` makes one from a configuration."""

from mtl_jax.models.base import MultiTaskModel, evaluation_view, training_view
from mtl_jax.models.build import FUSIONS, MODELS, build
from mtl_jax.models.multi_task import Baseline

__all__ = ["FUSIONS", "MODELS", "Baseline", "MultiTaskModel", "build", "evaluation_view", "training_view"]
