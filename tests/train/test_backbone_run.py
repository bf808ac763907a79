"""Runs on transformers and ConvNeXts: training, checkpoints, evaluation, and rates that decay by the layers."""

from dataclasses import replace

import numpy as np
import pytest

from mtl_jax import backbones, weights
from mtl_jax.backbones import convnext, swin, vit_variants
from mtl_jax.backbones.vit import build_vit
from mtl_jax.backbones.vit_variants import VARIANTS
from mtl_jax.train import restore
from mtl_jax.train.loop import fit
from tests import tiny

VIT = replace(VARIANTS["dinov2_small"], width=32, heads=2, outputs=(1, 2, 3, 4), patch=8, grid=4, hidden=1)
SWIN = swin.Variant(8, (1, 1, 2, 2), (2, 1, 1, 1), window=3, drop_path=0.2)
CONVNEXT = convnext.Variant((8, 8, 16, 16), (1, 1, 1, 1), drop_path=0.2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "variant", "build", "stage", "parameter"),
    [
        (vit_variants, VIT, build_vit, "blocks_2", "blocks.3.attn.qkv.weight"),
        (swin, SWIN, swin.build_swin, "layers_0", "layers.0.blocks.1.attn.relative_position_bias_table"),
        (convnext, CONVNEXT, convnext.build_convnext, "stages_0", "stages.3.blocks.0.gamma"),
    ],
    ids=["vit", "swin", "convnext"],
)
def test_a_run(data_dir, tmp_path, monkeypatch, module, variant, build, stage, parameter):
    monkeypatch.setitem(module.VARIANTS, "tiny_network", variant)
    monkeypatch.setitem(backbones.BACKBONES, "tiny_network", build)
    config = tiny.config(data_dir, epochs=1)
    config.model.backbone, config.model.remat = "tiny_network", (stage,)
    config.optim.layer_decay = 0.5
    fit(config, tmp_path)
    arrays = weights.to_torch(restore.load(config, tmp_path, "best").state.model())
    assert all(np.isfinite(x).all() for x in arrays.values())
    assert f"backbone.encoder.{parameter}" in arrays
