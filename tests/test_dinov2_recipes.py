"""The recipes of dense heads on vision transformers."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from mtl_jax import backbones, experiment, recipes
from mtl_jax.backbones import vit_variants
from mtl_jax.backbones.vit import build_vit
from mtl_jax.config import main_tasks, num_channels, validate
from mtl_jax.heads import BNLinearHead, DPTHead, LinearHead
from mtl_jax.train import initial_weights
from tests.marks import slow

RECIPES = {"nyud_dinov2": (476, 644), "pascal_dinov2": (518, 518)}


@pytest.fixture(autouse=True)
def tiny_dinov2(monkeypatch):
    """A transformer of the family, which is traced quickly."""
    variant = replace(vit_variants.VARIANTS["dinov2_small"], width=16, heads=2, outputs=(1, 2, 3, 4), grid=3, hidden=1)
    monkeypatch.setitem(vit_variants.VARIANTS, "dinov2_tiny", variant)
    monkeypatch.setitem(backbones.BACKBONES, "dinov2_tiny", build_vit)


@pytest.mark.parametrize(
    ("name", "head", "encoder"),
    [
        ("nyud_dinov2", "linear", "frozen"),
        ("pascal_dinov2", "linear", "tuned"),
        slow("pascal_dinov2", "dpt", "tuned"),
        slow("nyud_dinov2", "dpt", "frozen"),
        slow("nyud_dinov2", "dpt", "tuned"),
        slow("pascal_dinov2", "linear", "frozen"),
    ],
)
def test_models_of_the_recipes(name, head, encoder):
    config = validate(recipes.load(f"{name}:backbone=dinov2_tiny,head={head},encoder={encoder}"))
    assert tuple(config.data.image_size) == RECIPES[name]
    model = nnx.eval_shape(lambda: initial_weights.build_untrained(config))
    graphdef, state = nnx.split(model)
    images = jax.ShapeDtypeStruct((1, *config.data.image_size, 3), jnp.float32)
    outputs = jax.eval_shape(lambda state, x: nnx.merge(graphdef, state)(x).logits, state, images)
    channels = num_channels(config, main_tasks(config))
    assert {task: x.shape[-1] for task, x in outputs.items()} == channels
    kinds = {type(module) for _, module in nnx.iter_modules(model)}
    assert kinds & {BNLinearHead, DPTHead, LinearHead} == ({DPTHead} if head == "dpt" else {BNLinearHead, LinearHead})
    trained = {path[0] for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))}
    assert trained == {"decoders"} | ({"backbone"} if encoder == "tuned" else set())
    experiment.make(config).optimizer(steps_per_epoch=10)


@pytest.mark.parametrize(
    ("spec", "size", "weights"),
    [
        ("nyud_dinov2", (476, 644), "weights/dinov2_base.pth"),
        ("nyud_dinov2:backbone=dinov3_small,weights=a/b.safetensors", (480, 640), "a/b.safetensors"),
        ("pascal_dinov2:backbone=vit_base_patch16,tasks=small", (512, 512), "weights/vit_base_patch16.pth"),
    ],
)
def test_sizes_and_weights(spec, size, weights):
    config = validate(recipes.load(spec))
    assert (tuple(config.data.image_size), config.model.pretrained) == (size, weights)
    assert not any(side % vit_variants.VARIANTS[config.model.backbone].patch for side in size)


def test_the_published_range_and_losses_of_depth():
    config = recipes.load("nyud_dinov2:head=linear,tasks=small")
    assert main_tasks(config) == ("semseg", "depth")
    assert config.model.regression == {"depth": "bins:low=0.001,high=10"}
    assert config.losses["depth"] == "silog:variance_focus=0.85,root=true,eps=0.001+0.5*gradient:eps=0.001"


def test_other_backbones_are_refused():
    with pytest.raises(ValueError, match="no recipe for backbone 'resnet18'; give one whose name begins with 'dinov2'"):
        recipes.load("nyud_dinov2:backbone=resnet18")
