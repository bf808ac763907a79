"""What Swin Transformers and ConvNeXts share. `parity/test_hierarchies.py` compares their numbers with timm's."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_jax import backbones, models, weights
from mtl_jax.backbones import convnext, swin
from mtl_jax.config import Config, Data, Model
from mtl_jax.nn import InitialKeys, isolate, remat
from mtl_jax.train import initial_weights
from parity import transformers
from parity.interpreter import interpret
from tests import tiny
from tests.marks import slow

# The least width that MTI-Net takes, since squeeze-and-excitation wants 16 channels of the finest map.
SWIN = swin.Variant(16, (1, 2, 2, 4), (2, 1, 1, 1), window=2, drop_path=0.3)
CONVNEXT = convnext.Variant((16, 32, 64, 128), (2, 1, 1, 1), layer_scale=0.5, drop_path=0.3)
FAMILIES = {"tiny_swin": swin, "tiny_convnext": convnext}
STAGES = {
    "tiny_swin": ("patch_embed", "layers_0", "layers_1", "layers_2", "layers_3"),
    "tiny_convnext": ("stem", "stages_0", "stages_1", "stages_2", "stages_3"),
}
SIZE = (37, 50)
# {backbone: sizes of its maps for these images}; one family rounds up, the other one down
MAPS = {"tiny_swin": [(10, 13), (5, 7), (3, 4), (2, 2)], "tiny_convnext": [(9, 12), (4, 6), (2, 3), (1, 1)]}
CHANNELS = (16, 32, 64, 128)

each = pytest.mark.parametrize("name", FAMILIES)


@pytest.fixture(autouse=True)
def _tiny_variants(monkeypatch):
    monkeypatch.setitem(swin.VARIANTS, "tiny_swin", SWIN)
    monkeypatch.setitem(convnext.VARIANTS, "tiny_convnext", CONVNEXT)
    monkeypatch.setitem(backbones.BACKBONES, "tiny_swin", swin.build_swin)
    monkeypatch.setitem(backbones.BACKBONES, "tiny_convnext", convnext.build_convnext)


def build(name):
    return backbones.build(name, rngs=InitialKeys(0))


def abstract(name):
    return nnx.eval_shape(lambda: build(name))


def run(model, images):
    """The maps of a model that is not compiled: that takes longer than everything else."""
    graphdef, state = nnx.split(models.evaluation_view(model))
    return interpret(lambda state, images: nnx.merge(graphdef, state)(images))(nnx.as_pure(state), images)


def config(model, backbone, tasks=("semseg", "depth"), **options):
    return Config(Data("nyud", tasks, image_size=SIZE), Model(model, backbone, **options))


@each
def test_maps_and_stages(name):
    graphdef, state = nnx.split(abstract(name))

    def run(state, images):
        model = models.evaluation_view(nnx.merge(graphdef, state))
        maps, stages = (images,), {}
        for stage in model.stages:
            maps = stages[stage] = model.run_stage(stage, maps)
        return model(images), stages

    maps, stages = jax.eval_shape(run, state, jax.ShapeDtypeStruct((2, *SIZE, 3), jnp.float32))
    shapes = [(2, *size, width) for size, width in zip(MAPS[name], CHANNELS, strict=True)]
    assert [x.shape for x in maps] == shapes
    assert [[x.shape for x in stages[stage]] for stage in STAGES[name]] == [[x] for x in (shapes[0], *shapes)]
    model = abstract(name)
    assert (model.channels, model.stages) == (CHANNELS, STAGES[name])
    assert [model.stage_channels(stage) for stage in model.stages] == [(shape[-1],) for shape in (shapes[0], *shapes)]


@each
def test_each_map_has_a_norm_of_its_own(name):
    model, images = build(name), transformers.image(*SIZE)
    before = run(model, images)
    for i, norm in enumerate(model.norms):
        norm.scale[...] = norm.scale[...] + i
        norm.bias[...] = norm.bias[...] - 1
    for i, (x, changed) in enumerate(zip(before, run(model, images), strict=True)):
        np.testing.assert_allclose(x.mean(-1), 0, atol=1e-5)
        assert (x.std(-1) > 0.9).all()
        np.testing.assert_allclose(changed, x * (1 + i) - 1, atol=1e-5)


@each
def test_layers_name_every_parameter_but_the_norms_of_the_maps(name):
    model = abstract(name)
    paths = {".".join(map(str, path)) for path, leaf in nnx.to_flat_state(nnx.state(model))}
    in_layers = [{path for path in paths for part in names if path.startswith(f"{part}.")} for names in model.layers]
    assert len(model.layers) == 1 + 5  # the stem and the blocks
    assert all(in_layers)
    assert all(not a & b for a, b in itertools.combinations(in_layers, 2))
    assert {path.split(".")[0] for path in paths - set.union(*in_layers)} == {"norms"}


def test_rates_decay_from_the_last_block_to_the_stem():
    model = nnx.eval_shape(lambda: models.build(config("single_task", "tiny_swin", ("depth",))))
    factors = models.learning_rate_factors(model, {}, 0.5)
    encoder = "backbone.encoder"
    assert factors[f"{encoder}.patch_embed.norm.scale"] == 0.5**6
    assert factors[f"{encoder}.layers.0.blocks.0.attn.qkv.kernel"] == 0.5**5
    assert factors[f"{encoder}.layers.1.downsample.reduction.kernel"] == 0.5**3
    assert factors[f"{encoder}.layers.1.blocks.0.mlp.fc2.bias"] == 0.5**3
    assert factors[f"{encoder}.layers.3.blocks.0.norm1.scale"] == 0.5
    assert factors["backbone.norms.0.scale"] == 1


def test_position_biases_do_not_decay():
    model = nnx.eval_shape(lambda: models.build(config("single_task", "tiny_swin", ("depth",))))
    numbers = [(0, 0), (0, 1), (1, 0), (2, 0), (3, 0)]
    assert models.not_decayed(model) == {
        f"backbone.encoder.layers.{stage}.blocks.{block}.attn.relative_position_bias_table" for stage, block in numbers
    }
    model = nnx.eval_shape(lambda: models.build(config("single_task", "tiny_convnext", ("depth",))))
    assert not models.not_decayed(model)


@each
def test_each_block_of_a_selected_stage_recomputes_by_itself(name):
    model = models.training_view(abstract(name), nnx.Rngs(0))
    remat.select(model, STAGES[name][:3])
    graphdef, state = nnx.split(model)
    images = jax.ShapeDtypeStruct((1, *SIZE, 3), jnp.float32)
    program = jax.make_jaxpr(lambda state, images: nnx.merge(graphdef, state)(images))(state, images)
    recomputed = sum("remat" in str(equation.primitive) for equation in program.eqns)
    assert recomputed == 1 + 2 + 2  # the stem; two blocks; what halves the resolution and a block


def gradients(name, stages):
    model = models.training_view(build(name), nnx.Rngs(dropout=0))
    remat.select(model, stages)
    graphdef, parameters, rest = nnx.split(model, nnx.Param, ...)
    images = jnp.asarray(transformers.image(*SIZE))

    def loss(parameters):
        maps = nnx.merge(graphdef, parameters, rest, copy=True)(images)
        return sum((x * jnp.arange(x.size).reshape(x.shape) / x.size).mean() for x in maps)

    return jax.jit(jax.value_and_grad(loss))(nnx.as_pure(parameters))


@pytest.mark.slow
@each
def test_rematerialisation_changes_no_numbers(name):
    """The second pass drops the branches that the first one dropped."""
    stored, recomputed = gradients(name, ()), gradients(name, STAGES[name])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-6), stored, recomputed)


@pytest.mark.parametrize("make", [swin.Block, convnext.Block], ids=["swin", "convnext"])
def test_blocks_drop_branches_of_images_in_training_alone(make):
    sizes = {"heads": 1, "window": 2, "shifted": True} if make is swin.Block else {"layer_scale": 1.0}
    block = make(4, **sizes, drop_path=0.5, rngs=InitialKeys(0))
    x = np.random.default_rng(0).standard_normal((30, 2, 3, 4)).astype(np.float32)
    graphdef, state = nnx.split(block)

    def train(state, x, seed):
        return models.training_view(nnx.merge(graphdef, state), nnx.Rngs(dropout=seed))(x)

    trained = interpret(train)
    unchanged = [
        (trained(nnx.as_pure(state), x, seed) == x).all((1, 2, 3))
        for seed in np.array([[0, 1], [0, 1], [0, 2]], np.uint32)
    ]
    assert all(0 < images.sum() < len(images) for images in unchanged)
    assert (unchanged[0] == unchanged[1]).all()
    assert (unchanged[0] != unchanged[2]).any()
    assert not (run(block, x) == x).all((1, 2, 3)).any()


CASES = set(itertools.product(models.MODELS, FAMILIES, ["float32", "bfloat16"]))
QUICK = {("baseline", "tiny_convnext", "bfloat16"), ("cross_stitch", "tiny_swin", "float32")}


@pytest.mark.parametrize(("model", "name", "dtype"), [*sorted(QUICK), *(slow(*case) for case in sorted(CASES - QUICK))])
def test_models(model, name, dtype):
    """Outputs and gradients of every model have the right shapes; nothing is computed."""
    if model == "mtan":
        with pytest.raises(ValueError, match="mtan attends inside the layers of a ResNet"):
            models.build(config(model, name))
        return
    tasks = ("depth",) if model == "single_task" else ("semseg", "depth")
    graphdef, state = nnx.split(nnx.eval_shape(lambda: models.build(config(model, name, tasks, dtype=dtype))))

    def loss(state, images):
        outputs = models.training_view(nnx.merge(graphdef, state), nnx.Rngs(0))(images)
        return sum(x.astype(jnp.float32).mean() for x in outputs.logits.values()), outputs.logits

    images = jax.ShapeDtypeStruct((2, *SIZE, 3), jnp.float32)
    gradient, outputs = jax.eval_shape(jax.grad(loss, has_aux=True, allow_int=True), state, images)
    channels = {"semseg": 40, "depth": 1}
    assert {task: x.shape for task, x in outputs.items()} == {task: (2, *SIZE, channels[task]) for task in tasks}
    assert {x.dtype for x in outputs.values()} == {jnp.dtype(dtype)}
    assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, state)


@each
@pytest.mark.parametrize("shape", [(2, 3, 64, 96), (2, 64, 96, 1), (64, 96, 3)])
def test_images_of_another_layout_are_refused(name, shape):
    with pytest.raises(ValueError, match=r"images and maps are \[B, H, W, C\], images with 3 channels"):
        jax.eval_shape(abstract(name), jax.ShapeDtypeStruct(shape, jnp.float32))


@each
def test_onnx_files_hold_the_network(name):
    reference = pytest.importorskip("onnx.reference", reason="needs the extra onnx", exc_type=ModuleNotFoundError)
    from mtl_jax import to_onnx

    model, images = models.evaluation_view(build(name)), transformers.image(*SIZE)
    names = ["finest", "fine", "coarse", "coarsest"]
    (batch,) = jax.export.symbolic_shape("b")
    with isolate.fused():
        converted = to_onnx.to_model(
            lambda images: dict(zip(names, model(images), strict=True)),
            jax.ShapeDtypeStruct((batch, *images.shape[1:]), jnp.float32),
            names,
            name="images",
            calls={},
        )
    results = reference.ReferenceEvaluator(converted).run(None, {"images": images})
    for ours, theirs in zip(run(model, images), results, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@each
def test_pretrained_weights_fill_all_but_the_norms_of_the_maps(name, tmp_path):
    source = abstract(name).encoder
    rng = np.random.default_rng(0)
    shapes = {key: x.shape for key, x in weights.to_torch(build(name).encoder).items()}
    arrays = {key: rng.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}
    classifier = {"norm.weight": np.zeros(128, np.float32), "head.fc.weight": np.zeros((10, 128), np.float32)}
    weights.write_arrays(tmp_path / "weights.safetensors", {f"model.{k}": x for k, x in (arrays | classifier).items()})
    run = tiny.config(tmp_path)
    run.model.backbone, run.model.pretrained = name, str(tmp_path / "weights.safetensors")
    model = initial_weights.build_model(run)
    loaded = weights.to_torch(model.backbone.encoder)
    assert loaded.keys() == set(weights.torch_keys(source))
    assert all((loaded[key] == arrays[key]).all() for key in arrays)
    assert all((norm.scale[...] == 1).all() for norm in model.backbone.norms)


def test_a_variant_of_ones_own_has_other_rates(monkeypatch):
    """As docs/backbones.md says."""
    monkeypatch.setitem(swin.VARIANTS, "mine", replace(swin.VARIANTS["tiny_swin"], drop_path=0.5))
    backbones.register("mine")(swin.build_swin)
    try:
        model = abstract("mine")
    finally:
        del backbones.BACKBONES["mine"]
    assert model.encoder.layers[3].blocks[0].drop_path.rate == 0.5
