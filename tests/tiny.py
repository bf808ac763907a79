"""Small stand-ins that keep compilation short."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_jax import backbones, models
from mtl_jax.backbones import resnet, vit, vit_variants
from mtl_jax.backbones.base import Backbone, Maps
from mtl_jax.config import Config, Data, Model, Optim, Train
from mtl_jax.nn import BasicBlock, BatchNorm, Conv

# Every convolutional model on a backbone of each family that it takes, not small.
NETWORKS = [
    (name, backbone)
    for name in models.MODELS
    for backbone in ("hrnet_w18", "resnet18_dilated")
    if (name, backbone) != ("mtan", "hrnet_w18") and name != "invpt"
]
# The least width that squeeze-and-excitation takes.
_RESNET = resnet.Variant(BasicBlock, (2, 2, 2, 2), width=16)
RESNETS = {
    "tiny_resnet": _RESNET,
    "tiny_resnet_dilated": replace(_RESNET, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
}
# For InvPT, whose images have sides that are multiples of 32 on it.
VIT = replace(vit_variants.VARIANTS["deit_small_patch16"], width=16, heads=2, outputs=(1, 2, 3, 4), patch=8, hidden=1)


class TinyBackbone(Backbone):
    """Strided convolutions: the resolutions of an HRNet, little else. SE needs 16 channels at least.

    Like an HRNet it has a stem and stages each of which adds a coarser map to those there are.
    """

    def __init__(self, *, scales: int = 2, rngs: nnx.Rngs):
        self.channels = (16, 32, 64, 128)[:scales]
        self.stages = ("conv", *(f"stage{i + 1}" for i in range(scales)))
        self.layers = (("stem",), *((f"convs.{i}",) for i in range(scales)))
        widths = (3, *self.channels)
        self.stem = Conv(3, 3, 3, stride=2, rngs=rngs)
        self.convs = nnx.List([Conv(a, b, 3, stride=2, rngs=rngs) for a, b in itertools.pairwise(widths)])

    def stage_channels(self, stage: str) -> tuple[int, ...]:
        return (3,) if stage == "conv" else self.channels[: self.stages.index(stage)]

    def forward_stage(self, stage: str, maps: Maps) -> Maps:
        if stage == "conv":
            return (self.stem(maps[0]),)
        number = self.stages.index(stage)
        coarser: jax.Array = nnx.relu(self.convs[number - 1](maps[-1]))
        return (*maps[: number - 1], coarser)


def build_backbone(name: str, *, image_size: tuple[int, int] | None, rngs: nnx.Rngs) -> TinyBackbone:
    """What tests register as the backbone "tiny"."""
    return TinyBackbone(rngs=rngs)


def register_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes "tiny", "tiny_vit" and the `RESNETS` names that configurations may use."""
    monkeypatch.setitem(backbones.BACKBONES, "tiny", build_backbone)
    monkeypatch.setitem(vit_variants.VARIANTS, "tiny_vit", VIT)
    monkeypatch.setitem(backbones.BACKBONES, "tiny_vit", vit.build_vit)
    monkeypatch.setitem(backbones.PLAIN, "tiny_vit", vit.build_plain_vit)
    for name, variant in RESNETS.items():
        monkeypatch.setitem(resnet.VARIANTS, name, variant)
        monkeypatch.setitem(backbones.BACKBONES, name, resnet.build_resnet)


def randomise_batch_norms(model: nnx.Module) -> nnx.Module:
    """Gives batch norms, all alike and doing nothing at first, scales, biases and statistics of their own."""
    rng = np.random.default_rng(0)
    for _, module in nnx.iter_modules(model):
        if isinstance(module, BatchNorm):
            for positive in (module.scale, module.var):
                positive[...] = jnp.asarray(rng.uniform(0.5, 2, positive.shape), jnp.float32)
            for any_sign in (module.bias, module.mean):
                any_sign[...] = jnp.asarray(rng.normal(0, 0.5, any_sign.shape), jnp.float32)
    return model


def config(data_dir, **train) -> Config:
    """A single-task run on the embedded data at its smallest."""
    data = Data(
        "nyud",
        ("depth",),
        builder="rendered_scenes/nyud_tiny",
        data_dir=str(data_dir),
        image_size=(64, 64),
        num_workers=0,
    )
    options = {"batch_size": 4, "epochs": 2, "log_every": 1, "eval_batch_size": 4, "log_images": 0} | train
    return Config(data, Model("single_task", "tiny"), Optim(lr=1e-3), Train(**options))
