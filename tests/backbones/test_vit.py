"""Vision transformers as backbones. `parity/test_transformers.py` compares their numbers with recorded ones."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_jax import backbones, models, weights
from mtl_jax.backbones import PlainViT, ViT, vit_variants
from mtl_jax.backbones.vit import GROUPS, build_plain_vit, build_vit
from mtl_jax.backbones.vit_encoder import VisionTransformer
from mtl_jax.backbones.vit_variants import VARIANTS
from mtl_jax.backbones.vit_weights import published
from mtl_jax.config import Config, Data, Model
from mtl_jax.nn import InitialKeys, PackedSwiGLU, isolate, remat
from mtl_jax.nn.position_embedding import resize_cubic
from mtl_jax.train import initial_weights
from parity import transformers
from tests import tiny
from tests.marks import slow

# The least width that MTI-Net takes, since squeeze-and-excitation wants 16 channels of the finest map. A group has
# two blocks; the grid of its position embedding is another than that of the images.
TINY = replace(VARIANTS["dinov2_small"], width=128, heads=4, outputs=(1, 2, 4, 5), patch=4, grid=3, hidden=1)
ROTARY = replace(TINY, grid=0, registers=4)  # positions as in DINOv3
SIZE = (20, 28)
PUBLISHED = {
    "dinov2_small": "published_dinov2_vits14",
    "dinov2_small_reg4": "published_dinov2_vits14_reg4",
    "dinov2_base": "published_dinov2_vitb14",
    "dinov2_base_reg4": "published_dinov2_vitb14_reg4",
    "dinov2_large": "published_dinov2_vitl14",
    "dinov2_large_reg4": "published_dinov2_vitl14_reg4",
    "dinov2_giant": "published_dinov2_vitg14",
    "dinov2_giant_reg4": "published_dinov2_vitg14_reg4",
}
TIMM = {
    "vit_base_patch16": "full_timm_vit_base_patch16_384",
    "vit_large_patch16": "full_timm_vit_large_patch16_384",
    "dinov2_base": "full_timm_vit_base_patch14_dinov2",
    "dinov2_base_reg4": "full_timm_vit_base_patch14_reg4_dinov2",
    "dinov3_small": "full_timm_vit_small_patch16_dinov3",
    "dinov3_base": "full_timm_vit_base_patch16_dinov3",
    "dinov3_large": "full_timm_vit_large_patch16_dinov3",
}


@pytest.fixture(autouse=True)
def tiny_vit(monkeypatch):
    monkeypatch.setitem(vit_variants.VARIANTS, "tiny_vit", TINY)
    monkeypatch.setitem(backbones.BACKBONES, "tiny_vit", build_vit)
    monkeypatch.setitem(backbones.PLAIN, "tiny_vit", build_plain_vit)


def abstract(name):
    return nnx.eval_shape(lambda: VisionTransformer(VARIANTS[name], rngs=InitialKeys(0)))


def file_of(name):
    """Arrays under the keys and in the shapes of a published file, which take no memory."""
    return {key: np.broadcast_to(np.float32(0), shape) for key, shape in transformers.keys(name)}


@pytest.mark.parametrize(("name", "file"), [*PUBLISHED.items(), *TIMM.items()])
def test_published_files_fill_the_transformer_exactly(name, file):
    weights.check_torch(abstract(name), published(file_of(file), VARIANTS[name]))


def test_a_file_of_another_kind_is_refused():
    arrays = published(file_of("published_dinov2_vitb14_reg4"), VARIANTS["dinov2_base"])
    with pytest.raises(ValueError, match="unmatched: register_tokens"):
        weights.check_torch(abstract("dinov2_base"), arrays)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("dinov2_small", 22_056_576),
        ("dinov2_small_reg4", 22_058_112),
        ("dinov2_giant", 1_136_480_768),
        ("dinov2_giant_reg4", 1_136_486_912),
    ],
)
def test_number_of_parameters(name, number):
    """Published counts include the mask token, of as many numbers as a token has channels."""
    assert models.count_parameters(abstract(name)) == number - VARIANTS[name].width


def test_maps_and_stages():
    model = nnx.eval_shape(lambda: ViT("tiny_vit", rngs=InitialKeys(0)))
    graphdef, state = nnx.split(model)

    def run(state, images):
        model = nnx.merge(graphdef, state)
        maps, stages = (images,), {}
        for stage in model.stages:
            maps = stages[stage] = model.run_stage(stage, maps)
        return model(images), stages

    maps, stages = jax.eval_shape(run, state, jax.ShapeDtypeStruct((2, *SIZE, 3), jnp.float32))
    assert [x.shape[1:] for x in maps] == [(20, 28, 16), (10, 14, 32), (5, 7, 64), (3, 4, 128)]
    assert model.channels == (16, 32, 64, 128)
    for stage, tokens in stages.items():
        assert [x.shape for x in tokens] == [(2, 5, 7, 128), (2, 1, 1, 128)]
        assert model.stage_channels(stage) == tuple(x.shape[-1] for x in tokens)


def test_layers_name_every_parameter_but_those_behind_the_last_block():
    model = nnx.eval_shape(lambda: ViT("tiny_vit", rngs=InitialKeys(0)))
    paths = {".".join(map(str, path)) for path, leaf in nnx.to_flat_state(nnx.state(model))}
    in_layers = [{path for path in paths for name in names if path.startswith(name)} for names in model.layers]
    assert len(model.layers) == 1 + TINY.outputs[-1]
    assert all(in_layers)
    assert all(not a & b for a, b in itertools.combinations(in_layers, 2))
    rest = paths - set.union(*in_layers)
    assert {path.split(".")[:2][0 if path.startswith("pyramid") else 1] for path in rest} == {"norm", "pyramid"}


def test_rates_decay_from_the_last_block_to_the_embedding_and_tokens_keep_their_size():
    config = Config(Data("nyud", ("depth",), image_size=SIZE), Model("single_task", "tiny_vit"))
    model = nnx.eval_shape(lambda: models.build(config))
    factors = models.learning_rate_factors(model, {}, 0.5)
    assert factors["backbone.encoder.cls_token"] == factors["backbone.encoder.patch_embed.proj.kernel"] == 0.5**6
    assert factors["backbone.encoder.blocks.0.attn.qkv.kernel"] == 0.5**5
    assert factors["backbone.encoder.blocks.4.mlp.fc2.bias"] == 0.5
    assert factors["backbone.encoder.norm.scale"] == factors["backbone.pyramid.projects.0.kernel"] == 1
    assert models.not_decayed(model) == {"backbone.encoder.cls_token", "backbone.encoder.pos_embed"}


def test_a_frozen_transformer_has_no_gradient():
    config = Config(Data("nyud", ("depth",), image_size=SIZE), Model("single_task", "tiny_vit"))
    model = nnx.eval_shape(lambda: models.freeze(models.build(config), ["backbone.encoder"]))
    trained = {path[:2] for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))}
    assert ("backbone", "pyramid") in trained
    assert ("backbone", "encoder") not in trained
    images = jax.ShapeDtypeStruct((2, *SIZE, 3), jnp.float32)
    graphdef, state = nnx.split(model)
    outputs = jax.eval_shape(lambda state, images: nnx.merge(graphdef, state)(images).logits, state, images)
    assert outputs["depth"].shape == (2, *SIZE, 1)


def gradients(model, images):
    graphdef, state = nnx.split(model)

    def loss(state):
        maps = nnx.merge(graphdef, state)(images)
        return sum((x * jnp.arange(x.size).reshape(x.shape) / x.size).mean() for x in maps)

    return jax.jit(jax.value_and_grad(loss))(nnx.as_pure(state))


@pytest.mark.slow
def test_rematerialisation_changes_no_numbers():
    images = jnp.asarray(transformers.image(*SIZE))
    model = ViT("tiny_vit", rngs=InitialKeys(0))
    stored = gradients(model, images)
    remat.select(model, ("patch_embed", *GROUPS))
    recomputed = gradients(model, images)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-6), stored, recomputed)
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(stored[1]))  # every parameter takes part


@pytest.mark.parametrize("variant", [TINY, ROTARY], ids=["stored", "rotary"])
def test_each_block_of_a_selected_group_recomputes_by_itself(monkeypatch, variant):
    monkeypatch.setitem(vit_variants.VARIANTS, "tiny_vit", variant)
    model = nnx.eval_shape(lambda: ViT("tiny_vit", rngs=InitialKeys(0)))
    remat.select(model, ("blocks_3",))
    graphdef, state = nnx.split(model)
    images = jax.ShapeDtypeStruct((1, *SIZE, 3), jnp.float32)
    program = jax.make_jaxpr(lambda state, images: nnx.merge(graphdef, state)(images))(state, images)
    assert sum("remat" in str(equation.primitive) for equation in program.eqns) == 2  # the group's blocks


@pytest.mark.parametrize("name", ["baseline", "cross_stitch", "nddr_cnn", "pad_net", "mti_net"])
@pytest.mark.parametrize("dtype", ["float32", slow("bfloat16")])
def test_models(name, dtype):
    """Outputs and gradients of every model have the right shapes; nothing is computed."""
    config = Config(Data("nyud", ("semseg", "depth"), image_size=SIZE), Model(name, "tiny_vit", dtype=dtype))
    graphdef, state = nnx.split(nnx.eval_shape(lambda: models.build(config)))

    def loss(state, images):
        outputs = models.training_view(nnx.merge(graphdef, state), nnx.Rngs(0))(images)
        return sum(x.astype(jnp.float32).mean() for x in outputs.logits.values()), outputs.logits

    images = jax.ShapeDtypeStruct((2, *SIZE, 3), jnp.float32)
    gradient, outputs = jax.eval_shape(jax.grad(loss, has_aux=True, allow_int=True), state, images)
    assert {task: x.shape for task, x in outputs.items()} == {"semseg": (2, *SIZE, 40), "depth": (2, *SIZE, 1)}
    assert {x.dtype for x in outputs.values()} == {jnp.dtype(dtype)}
    assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, state)


@pytest.mark.parametrize("name", ["baseline", pytest.param("mti_net", marks=pytest.mark.slow)])
def test_every_parameter_learns(name):
    config = Config(Data("nyud", ("semseg", "depth"), image_size=SIZE), Model(name, "tiny_vit"))
    graphdef, parameters, rest = nnx.split(models.build(config), nnx.Param, ...)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.standard_normal((2, *SIZE, 3)), jnp.float32)

    def loss(parameters):
        outputs = models.training_view(nnx.merge(graphdef, parameters, rest, copy=True), nnx.Rngs(0))(images)
        weigh = np.random.default_rng(1).standard_normal
        return sum((x * weigh(x.shape).astype(np.float32)).mean() for x in outputs.logits.values())

    gradients = nnx.to_flat_state(nnx.as_pure(jax.jit(jax.grad(loss))(parameters)))
    assert all(np.isfinite(x).all() for _, x in gradients)
    still = {path[:2] for path, x in gradients if not np.abs(x).max()}
    # MTI-Net's intermediate predictions reach their own losses alone.
    assert all(path[0].startswith("scale_") for path in still)


def test_onnx_files_hold_transformers():
    reference = pytest.importorskip("onnx.reference", reason="needs the extra onnx", exc_type=ModuleNotFoundError)
    from mtl_jax import to_onnx

    model, images = ViT("tiny_vit", rngs=InitialKeys(0)), transformers.image(*SIZE)
    names = ["finest", "fine", "same", "coarse"]
    with isolate.fused():
        converted = to_onnx.to_model(
            lambda images: dict(zip(names, model(images), strict=True)),
            jax.ShapeDtypeStruct(images.shape, jnp.float32),
            names,
            name="images",
            calls={},
        )
    results = reference.ReferenceEvaluator(converted).run(None, {"images": images})
    for ours, theirs in zip(model(jnp.asarray(images)), results, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_mtan_is_refused():
    config = Config(Data("nyud", ("semseg", "depth"), image_size=SIZE), Model("mtan", "tiny_vit"))
    with pytest.raises(ValueError, match="mtan attends inside the layers of a ResNet"):
        nnx.eval_shape(lambda: models.build(config))


def test_images_that_patches_do_not_divide_are_refused():
    with pytest.raises(ValueError, match=r"448x576 pixels; .*--data\.image_size=448,574 for"):
        build_vit("dinov2_small", image_size=(448, 576), rngs=InitialKeys(0))
    model = nnx.eval_shape(lambda: ViT("tiny_vit", rngs=InitialKeys(0)))
    with pytest.raises(ValueError, match=r"images of 20x30 pixels do not divide into patches of 4x4"):
        jax.eval_shape(model, jax.ShapeDtypeStruct((1, 20, 30, 3), jnp.float32))


def test_images_get_the_statistics_of_the_weights():
    """A ViT of timm's was trained with pixels from -1 to 1; the library normalises with ImageNet's statistics."""
    half = replace(TINY, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    of_half, of_imagenet = (VisionTransformer(variant, rngs=InitialKeys(0)) for variant in (half, TINY))
    pixels = np.random.default_rng(0).uniform(0, 1, (1, *SIZE, 3)).astype(np.float32)
    normalised = (pixels - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    ours = of_half.embed(jnp.asarray(normalised, jnp.float32))[0]
    np.testing.assert_allclose(ours, of_imagenet.embed(jnp.asarray(2 * pixels - 1))[0], atol=1e-4)


def test_names_of_dinov3s_own_files():
    variant = VARIANTS["dinov3_small_plus_qkvb"]
    names = {
        "blocks.0.ls1.gamma": 2,
        "blocks.0.attn.qkv.bias": 6,
        "blocks.0.attn.qkv.bias_mask": 6,
        "blocks.0.mlp.w1.weight": 2,
        "blocks.0.mlp.w2.weight": 2,
        "blocks.0.mlp.w3.weight": 2,
        "storage_tokens": 2,
        "rope_embed.periods": 2,
        "mask_token": 2,
    }
    arrays = published({name: np.arange(size, dtype=np.float32) for name, size in names.items()}, variant)
    assert {name: x.tolist() for name, x in arrays.items()} == {
        "blocks.0.ls1.gamma": [0, 1],
        "blocks.0.attn.q_bias": [0, 1],
        "blocks.0.attn.v_bias": [4, 5],
        "blocks.0.mlp.fc1_g.weight": [0, 1],
        "blocks.0.mlp.fc1_x.weight": [0, 1],
        "blocks.0.mlp.fc2.weight": [0, 1],
        "register_tokens": [0, 1],
    }


def test_other_forms_of_names():
    plain, packed = TINY, replace(TINY, mlp=PackedSwiGLU)
    assert list(published({"blocks.2.7.norm1.weight": np.zeros(1)}, plain)) == ["blocks.7.norm1.weight"]
    assert list(published({"blocks.7.mlp.fc1.weight": np.zeros(1)}, plain)) == ["blocks.7.mlp.fc1.weight"]
    assert list(published({"blocks.7.mlp.fc1.weight": np.zeros(1)}, packed)) == ["blocks.7.mlp.w12.weight"]


def test_the_position_embedding_of_a_file_gets_the_grid_of_the_transformer():
    """A constant stays one; timm's files with registers have no position of the class token, which counts as 0."""
    for tokens, first in ((1 + 5 * 5, 7.0), (5 * 5, 0.0)):
        resized = published({"pos_embed": np.full((1, tokens, 128), 7, np.float32)}, TINY)["pos_embed"]
        assert resized.shape == (1, 1 + 3 * 3, 128)
        assert (resized[:, 0] == first).all()
        np.testing.assert_allclose(resized[:, 1:], 7, rtol=1e-6)


def test_pretrained_weights_fill_the_transformer_alone(tmp_path):
    source = VisionTransformer(TINY, rngs=InitialKeys(5))
    arrays = weights.to_torch(source)
    renamed = {f"backbone.{name}": x for name, x in arrays.items()} | {
        "backbone.mask_token": np.zeros((1, 128), np.float32)
    }
    weights.write_arrays(tmp_path / "vit.safetensors", renamed)
    config = tiny.config(tmp_path)
    config.data.image_size = SIZE
    config.model.backbone, config.model.pretrained = "tiny_vit", str(tmp_path / "vit.safetensors")
    model = initial_weights.build_model(config)
    loaded = weights.to_torch(model.backbone.encoder)
    assert loaded.keys() == arrays.keys()
    assert all((loaded[name] == arrays[name]).all() for name in arrays)
    fresh = models.build(config)
    assert (model.backbone.pyramid.projects[0].kernel[...] == fresh.backbone.pyramid.projects[0].kernel[...]).all()


def plain():
    return backbones.build_plain("tiny_vit", image_size=SIZE, rngs=InitialKeys(0))


def test_plain_maps():
    """As they are after three groups of blocks, and with the final norm after the last one."""
    model = plain()
    images = jnp.asarray(transformers.image(*SIZE))
    maps = model(images)
    assert [x.shape for x in maps] == [(2, 5, 7, 128)] * 4
    assert (model.channels, model.one_resolution, model.multiple) == ((128,) * 4, True, 4)
    tokens = model.embed(images)
    for first, end, ours in zip((0, *TINY.outputs), TINY.outputs, maps, strict=False):
        tokens = model.run(list(model.blocks)[first:end], tokens)
        expected = model.norm(tokens[0]) if end == TINY.outputs[-1] else tokens[0]
        np.testing.assert_array_equal(ours, expected)


def test_plain_transformers_store_positions_for_the_images_of_the_training():
    model = nnx.eval_shape(plain)
    assert (model.grid, model.pos_embed.shape) == ((5, 7), (1, 1 + 5 * 7, 128))
    paths = {".".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(model))}
    in_layers = {path for names in model.layers for name in names for path in paths if path.startswith(name)}
    assert {path.partition(".")[0] for path in paths - in_layers} == {"norm"}
    grid = np.random.default_rng(0).standard_normal((1, 1 + 3 * 3, 128)).astype(np.float32)
    resized = model.published_arrays({"pos_embed": grid})["pos_embed"]
    expected = resize_cubic(jnp.asarray(grid[:, 1:]).reshape(1, 3, 3, 128), (5, 7)).reshape(1, 35, 128)
    np.testing.assert_array_equal(resized, np.concatenate([grid[:, :1], expected], axis=1))
    unknown = nnx.eval_shape(lambda: backbones.build_plain("tiny_vit", rngs=InitialKeys(0)))
    assert unknown.grid == (3, 3)


def test_plain_transformers_take_images_as_they_are():
    """InvPT's code normalises with ImageNet's statistics, whatever the weights were trained with."""
    model = nnx.eval_shape(lambda: backbones.build_plain("vit_small_patch16", rngs=InitialKeys(0)))
    assert VARIANTS["vit_small_patch16"].mean == (0.5, 0.5, 0.5)
    assert (model.variant.mean, model.variant.std) == (TINY.mean, TINY.std)


def test_stochastic_depth_grows_from_block_to_block_and_is_for_training():
    variant = replace(TINY, layer_scale=0.0)  # with it, branches are small at first
    model, without = (PlainViT(variant, drop_path=rate, rngs=InitialKeys(0)) for rate in (0.2, 0.0))
    rates = [block.drop_path.rate if block.drop_path else 0 for block in model.blocks]
    np.testing.assert_allclose(rates, np.linspace(0, 0.2, 5))
    images = jnp.asarray(transformers.image(*SIZE))
    still = models.evaluation_view(model)(images)
    jax.tree.map(np.testing.assert_array_equal, still, without(images))
    trained = models.training_view(model, nnx.Rngs(dropout=0))(images)
    assert np.abs(trained[-1] - still[-1]).max() > 0.01


def test_backbones_without_a_plain_form_are_built_as_they_are():
    assert "resnet18" not in backbones.PLAIN
    assert not nnx.eval_shape(lambda: backbones.build_plain("resnet18", rngs=InitialKeys(0))).one_resolution
