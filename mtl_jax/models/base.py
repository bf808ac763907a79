"""The interface of a model for training, evaluation and weight files."""

import math
from collections.abc import Iterable
from typing import Any, ClassVar

import jax
from flax import nnx

from mtl_jax.backbones import Backbone
from mtl_jax.nn import Frozen, Staged, remat
from mtl_jax.optim import leads_to
from mtl_jax.outputs import Outputs


class MultiTaskModel(Staged):
    """A network from `[B, H, W, 3]` normalised images to the predictions of several tasks.

    Attributes:
        fusion: Name of the submodule through which the networks of the tasks exchange features, whose parameters may
            learn at a rate of their own; empty if there is none.
        starts_from_single_task: True if the model consists of single-task models, `backbone[task]` and `heads[task]`,
            and a fusion. The options of such a model are `SoftSharingOptions`.
        stages: Names of the model's own stages; the backbone has its own.
        specific: Names of the submodules whose parts each serve a single task. All others are shared by the tasks.
        no_weight_decay: Paths of submodules and parameters with two or more axes that are no kernels, such as
            embeddings of tasks, so that they do not decay with kernels.
        frozen: Paths of the parts that training leaves as they are; `models.freeze` sets it.
    """

    fusion: ClassVar[str] = ""
    starts_from_single_task: ClassVar[bool] = False
    stages: tuple[str, ...] = ("heads",)
    specific: tuple[str, ...] = ("heads",)
    no_weight_decay: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    backbone: Any
    heads: Any

    def backbones(self) -> tuple[Backbone, ...]:
        """Returns the backbones, each of which takes pretrained weights."""
        return (self.backbone,)

    @property
    def multiple(self) -> int:
        """Number of pixels of which the sides of images that prediction pads or scales become multiples."""
        return max(backbone.multiple for backbone in self.backbones())

    def parts(self, stage: str) -> Iterable[nnx.Module]:
        return self.heads.values() if stage == "heads" else ()

    def __call__(self, images: jax.Array) -> Outputs:
        """Predicts all tasks for `[B, H, W, 3]` normalised images."""
        raise TypeError(f"{type(self).__name__} does not define __call__")


def count_parameters(module: nnx.Module) -> int:
    """Returns the number of parameters of a module, which may be abstract, frozen ones included."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(module, nnx.Any(nnx.Param, Frozen))))


def training_view(model: nnx.Module, rngs: nnx.Rngs, batch_norm_groups: int = 1) -> nnx.Module:
    """Returns a view of a model that shares its variables, normalises with batch statistics and applies dropout.

    Frozen parts of a model are in evaluation mode, see `models.freeze`.

    Args:
        model: The model.
        rngs: Random numbers, with a stream "dropout".
        batch_norm_groups: Number of parts of the batch that are normalised separately, see `mtl_jax.nn.BatchNorm`.
    """
    frozen = getattr(model, "frozen", ())

    def is_frozen(path: tuple[Any, ...], module: Any) -> bool:
        return any(leads_to(part, ".".join(map(str, path))) for part in frozen)

    if frozen:  # first, because Flax's tree mode cannot copy a view whose modules share random numbers
        model = nnx.view(model, only=is_frozen, use_running_average=True, deterministic=True, raise_if_not_found=False)
    return nnx.view(
        model,
        only=lambda path, module: not is_frozen(path, module),
        use_running_average=False,
        batch_norm_groups=batch_norm_groups,
        deterministic=False,
        rngs=rngs,
        raise_if_not_found=False,
    )


def evaluation_view(model: nnx.Module) -> nnx.Module:
    """Returns a view of a model that shares its variables, normalises with running statistics and drops nothing out."""
    view = nnx.view(model, use_running_average=True, deterministic=True, raise_if_not_found=False)
    remat.select(view, ())
    return view
