"""Runs of DINOv2's dense heads on a frozen vision transformer."""

import json
from dataclasses import replace

import pytest

from mtl_jax import backbones, weights
from mtl_jax.backbones import vit_variants
from mtl_jax.backbones.vit import build_vit
from mtl_jax.config import Model, Optim
from mtl_jax.train import initial_weights, restore
from mtl_jax.train.loop import fit
from tests import tiny


@pytest.fixture
def tiny_vit(monkeypatch):
    original = vit_variants.VARIANTS["dinov2_small"]
    variant = replace(original, width=32, heads=2, outputs=(1, 2, 3, 4), patch=8, grid=4, hidden=1)
    monkeypatch.setitem(vit_variants.VARIANTS, "tiny_vit", variant)
    monkeypatch.setitem(backbones.BACKBONES, "tiny_vit", build_vit)
    return "tiny_vit"


@pytest.mark.slow
@pytest.mark.parametrize("head", ["dpt:features=16", "linear", "bn_linear"])
def test_a_run(data_dir, tmp_path, tiny_vit, head):
    config = tiny.config(data_dir, epochs=2)
    config.data.tasks = ("semseg", "depth")
    config.model = Model("baseline", tiny_vit, head, regression={"depth": "bins:number=16"})
    config.optim = Optim("adamw", lr=1e-3, freeze=("backbone",))
    fit(config, tmp_path)
    initial = weights.to_torch(initial_weights.build_model(config))
    trained = weights.to_torch(restore.load(config, tmp_path, "latest").state.model())
    moved = {name.split(".")[0] for name, array in trained.items() if (array != initial[name]).any()}
    assert moved == {"decoders"}
    scores = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(0 < line["depth/rmse"] < 10 for line in scores if line["kind"] == "eval")
