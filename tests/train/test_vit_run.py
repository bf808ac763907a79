"""A run on a vision transformer: training, checkpoints, evaluation, and rates that decay by its layers."""

from dataclasses import replace

import numpy as np
import pytest

from mtl_jax import backbones, weights
from mtl_jax.backbones import vit_variants
from mtl_jax.backbones.vit import build_vit
from mtl_jax.backbones.vit_variants import VARIANTS
from mtl_jax.train import restore
from mtl_jax.train.loop import fit
from tests import tiny


@pytest.mark.slow
def test_a_run(data_dir, tmp_path, monkeypatch):
    variant = replace(VARIANTS["dinov2_small"], width=32, heads=2, outputs=(1, 2, 3, 4), patch=8, grid=4, hidden=1)
    monkeypatch.setitem(vit_variants.VARIANTS, "tiny_vit", variant)
    monkeypatch.setitem(backbones.BACKBONES, "tiny_vit", build_vit)
    config = tiny.config(data_dir, epochs=1)
    config.model.backbone, config.model.remat = "tiny_vit", ("blocks_2",)
    config.optim.layer_decay = 0.5
    fit(config, tmp_path)
    arrays = weights.to_torch(restore.load(config, tmp_path, "best").state.model())
    assert all(np.isfinite(x).all() for x in arrays.values())
    assert "backbone.encoder.blocks.3.attn.qkv.weight" in arrays
