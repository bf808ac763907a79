"""Input data: tfds builders, decoding, transforms and batches. Names are imported when they are first used."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtl_jax.data.augmentation import RECIPES, Draw, Recipe, draw, register_recipe, train_transform, val_transform
    from mtl_jax.data.catalogue import BUILDERS, DATASETS, Dataset, register, register_builder
    from mtl_jax.data.datasets import open_split, prepare
    from mtl_jax.data.loader import TrainBatches, steps_per_epoch, train_batches, val_batches
    from mtl_jax.data.records import decode
    from mtl_jax.data.split import Split

_HOME = {
    **dict.fromkeys(("BUILDERS", "DATASETS", "Dataset", "register", "register_builder"), "catalogue"),
    **dict.fromkeys(("open_split", "prepare"), "datasets"),
    **dict.fromkeys(("TrainBatches", "steps_per_epoch", "train_batches", "val_batches"), "loader"),
    **dict.fromkeys(("decode",), "records"),
    **dict.fromkeys(("Split",), "split"),
    **dict.fromkeys(
        ("RECIPES", "Draw", "Recipe", "draw", "register_recipe", "train_transform", "val_transform"), "augmentation"
    ),
}

__all__ = [
    "BUILDERS",
    "DATASETS",
    "RECIPES",
    "Dataset",
    "Draw",
    "Recipe",
    "Split",
    "TrainBatches",
    "decode",
    "draw",
    "open_split",
    "prepare",
    "register",
    "register_builder",
    "register_recipe",
    "steps_per_epoch",
    "train_batches",
    "train_transform",
    "val_batches",
    "val_transform",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"mtl_jax.data.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
