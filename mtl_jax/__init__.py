"""Multi-task dense prediction in JAX/Flax.

An independent implementation of the models, losses and metrics of the survey arXiv 2004.13379 and of MTI-Net
(arXiv 2001.06902). Importing the package starts no device and opens no file, and imports neither jax nor anything of
its size: its parts (`mtl_jax.models`, `mtl_jax.losses`, ...) and functions are imported when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtl_jax.inference.create import create_model, list_backbones, list_models
    from mtl_jax.inference.model import Model, load
    from mtl_jax.inference.options import PredictOptions

__version__ = "0.1.0"

# {name: module that has it}
_HOME = {
    **dict.fromkeys(("Model", "load"), "inference.model"),
    **dict.fromkeys(("create_model", "list_backbones", "list_models"), "inference.create"),
    "PredictOptions": "inference.options",
}
_PARTS = (
    "app",
    "backbones",
    "balancing",
    "boundaries",
    "cli",
    "codecs",
    "commands",
    "config",
    "config_help",
    "config_overrides",
    "data",
    "drawing",
    "evaluation",
    "experiment",
    "field_values",
    "folders",
    "heads",
    "images",
    "inference",
    "labels",
    "loggers",
    "losses",
    "metrics",
    "models",
    "nn",
    "notation",
    "optim",
    "outputs",
    "protocol",
    "recipes",
    "registry",
    "reports",
    "runtime",
    "tasks",
    "to_onnx",
    "train",
    "weights",
)

__all__ = ["Model", "PredictOptions", "create_model", "list_backbones", "list_models", "load"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"mtl_jax.{_HOME[name]}"), name)
    if name in _PARTS:
        return importlib.import_module(f"mtl_jax.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_PARTS})
