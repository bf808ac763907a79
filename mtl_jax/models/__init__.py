"""Models: one file per method. `build` makes one from a configuration, `register` adds a name."""

from mtl_jax.models.base import MultiTaskModel, count_parameters, evaluation_view, training_view
from mtl_jax.models.build import build
from mtl_jax.models.cross_stitch import CrossStitch
from mtl_jax.models.invpt import InvPT, InvPTOptions
from mtl_jax.models.mtan import MTAN
from mtl_jax.models.mtinet import MTINet
from mtl_jax.models.multi_task import Baseline, SingleTask
from mtl_jax.models.named_parts import freeze, learning_rate_factors, not_decayed
from mtl_jax.models.nddr_cnn import NDDRCNN
from mtl_jax.models.padnet import PADNet
from mtl_jax.models.registry import MODELS, ModelParts, NoOptions, fusions, option_fields, options, register
from mtl_jax.models.soft_sharing import SoftSharingOptions
from mtl_jax.outputs import Outputs

__all__ = [
    "MODELS",
    "MTAN",
    "NDDRCNN",
    "Baseline",
    "CrossStitch",
    "InvPT",
    "InvPTOptions",
    "MTINet",
    "ModelParts",
    "MultiTaskModel",
    "NoOptions",
    "Outputs",
    "PADNet",
    "SingleTask",
    "SoftSharingOptions",
    "build",
    "count_parameters",
    "evaluation_view",
    "freeze",
    "fusions",
    "learning_rate_factors",
    "not_decayed",
    "option_fields",
    "options",
    "register",
    "training_view",
]
