"""Kinds of labels: what the values of a label or a prediction mean, one file for each kind.

A task names its kind (`mtl_jax.tasks`). Transforms, predictions, drawings, exports and folders of one's own ask the
kind, so a task with another kind of label needs a subclass of `LabelKind` and nothing else.
"""

from mtl_jax.labels.class_ids import ClassIds
from mtl_jax.labels.conventions import Conventions
from mtl_jax.labels.drawn import IGNORE
from mtl_jax.labels.foreground import Foreground
from mtl_jax.labels.kind import LabelKind
from mtl_jax.labels.label_files import LabelFiles
from mtl_jax.labels.real_values import RealValues
from mtl_jax.labels.sizes import INTERPOLATIONS
from mtl_jax.labels.unit_vectors import UnitVectors

__all__ = [
    "IGNORE",
    "INTERPOLATIONS",
    "ClassIds",
    "Conventions",
    "Foreground",
    "LabelFiles",
    "LabelKind",
    "RealValues",
    "UnitVectors",
]
