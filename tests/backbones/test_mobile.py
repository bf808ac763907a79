"""Networks of inverted residual blocks. `parity/test_timm_mobile.py` compares their numbers with timm's."""

import itertools
import logging
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_jax import backbones, models, weights
from mtl_jax.backbones import efficientnet_lite, mobilenet_v2, mobilenet_v3
from mtl_jax.backbones.efficientnet_lite import EfficientNetLite
from mtl_jax.backbones.mobile import STAGES, STEM, Block, MobileNet, Variant, rounded, rows_to_groups
from mtl_jax.backbones.renormalise import IMAGENET_MEAN, IMAGENET_STD
from mtl_jax.config import Config, Data, Model
from mtl_jax.nn import BatchNorm, InitialKeys, fold_batch_norm, isolate, remat
from mtl_jax.nn.activations import hard_swish, relu6
from tests import tiny
from tests.marks import slow

VARIANTS = efficientnet_lite.VARIANTS | mobilenet_v2.VARIANTS | mobilenet_v3.VARIANTS
# A group each at strides 2 to 32, the last but one of two blocks.
_ROWS = ((3, 1, 8, 1, 1), (3, 2, 16, 1, 2), (5, 2, 16, 1, 2), (3, 2, 24, 2, 2), (5, 2, 24, 1, 1), (3, 2, 32, 1, 2))
TINY = Variant(8, rows_to_groups(_ROWS, 8, relu6), relu6, same_padding=True, epsilon=1e-3)
# As in MobileNetV3: squeeze-and-excitation, no group at stride 2, a convolution after the blocks.
SQUEEZED = Variant(
    8,
    (
        (Block(3, 8, 16, nnx.relu, stride=2, squeeze=4),),
        (Block(5, 32, 16, hard_swish, stride=2, squeeze=4),),
        (Block(3, 32, 16, hard_swish, stride=2),),
        (Block(3, 32, 24, hard_swish, stride=2),),
    ),
    hard_swish,
    last=32,
)
SIZE = (33, 50)


def abstract(name):
    return nnx.eval_shape(lambda: backbones.build(name, rngs=InitialKeys(0)))


@pytest.fixture
def tiny_mobile(monkeypatch):
    monkeypatch.setitem(efficientnet_lite.VARIANTS, "tiny_mobile", TINY)
    monkeypatch.setitem(backbones.BACKBONES, "tiny_mobile", efficientnet_lite.build_efficientnet_lite)


@pytest.mark.parametrize(
    ("name", "channels", "parameters"),
    [
        # Channels and numbers are those of timm's models with features_only=True.
        ("efficientnet_lite0", (24, 40, 112, 320), 2_958_848),
        slow("efficientnet_lite0_symmetric", (24, 40, 112, 320), 2_958_848),
        slow("efficientnet_lite1", (24, 40, 112, 320), 3_723_520),
        ("efficientnet_lite2", (24, 48, 120, 352), 4_357_952),
        slow("mobilenetv2_050", (16, 16, 48, 160), 480_320),
        slow("mobilenetv2_100", (24, 32, 96, 320), 1_811_712),
        ("mobilenetv2_140", (32, 48, 136, 448), 3_509_376),
        ("mobilenetv3_small", (16, 24, 48, 576), 927_008),
        ("mobilenetv3_large", (24, 40, 112, 960), 2_971_952),
    ],
)
def test_sizes(name, channels, parameters):
    model = abstract(name)
    assert model.channels == channels
    assert models.count_parameters(model) == parameters


def test_every_variant_has_a_test_of_its_sizes():
    (mark,) = test_sizes.pytestmark
    assert {getattr(case, "values", case)[0] for case in mark.args[1]} == set(VARIANTS)


@pytest.mark.parametrize("variant", [TINY, SQUEEZED], ids=["tiny", "squeezed"])
def test_maps_and_stages(variant):
    model = nnx.eval_shape(lambda: MobileNet(variant, rngs=InitialKeys(0)))
    graphdef, state = nnx.split(model)

    def run(state, images):
        model = nnx.merge(graphdef, state)
        maps, stages = (images,), {}
        for stage in model.stages:
            maps = stages[stage] = model.run_stage(stage, maps)
        return model(images), stages

    maps, stages = jax.eval_shape(run, state, jax.ShapeDtypeStruct((2, *SIZE, 3), jnp.float32))
    sides = [(9, 13), (5, 7), (3, 4), (2, 2)]
    assert [x.shape[1:] for x in maps] == [(*side, c) for side, c in zip(sides, model.channels, strict=True)]
    assert stages[STEM][0].shape[1:3] == (17, 25)
    for stage, (x,) in stages.items():
        assert model.stage_channels(stage) == (x.shape[-1],)


@pytest.mark.parametrize("variant", [TINY, SQUEEZED], ids=["tiny", "squeezed"])
def test_every_parameter_belongs_to_one_layer(variant):
    model = nnx.eval_shape(lambda: MobileNet(variant, rngs=InitialKeys(0)))
    paths = {".".join(map(str, path)) for path, leaf in nnx.to_flat_state(nnx.state(model))}
    in_layers = [{path for path in paths for name in names if path.startswith(f"{name}.")} for names in model.layers]
    assert all(in_layers)
    assert all(not a & b for a, b in itertools.combinations(in_layers, 2))
    assert set.union(*in_layers) == paths


def test_the_depthwise_kernels_start_as_those_of_a_single_channel():
    model = MobileNet(replace(TINY, groups=rows_to_groups(_ROWS[:2], 8, relu6)), rngs=InitialKeys(0))
    for conv, variance in ((model.blocks[0][0].conv_dw, 2 / 9), (model.blocks[1][0].conv_pw, 2 / 16)):
        kernel = np.asarray(conv.kernel[...])
        deviation = kernel.std() / np.sqrt(variance)
        assert abs(deviation - 1) < 4 / np.sqrt(2 * kernel.size)  # four standard errors


def test_images_get_the_statistics_of_the_weights():
    """EfficientNet-Lite was trained with (pixel - 127) / 128; the library normalises with ImageNet's statistics."""
    ones = replace(TINY, mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
    pixels = np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3))
    normalised = (pixels / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    ours, given = (MobileNet(variant, rngs=InitialKeys(0)) for variant in (ones, TINY))
    (a,), (b,) = (
        nnx.view(model, use_running_average=True).forward_stage(STEM, (jnp.asarray(images, jnp.float32),))
        for model, images in ((ours, normalised), (given, (pixels - 127.0) / 128))
    )
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_published_numbers_of_channels_are_rounded():
    assert [rounded(x) for x in (1, 8, 12, 18, 26.4, 44.8, 132)] == [8, 8, 16, 24, 24, 48, 136]


def names_of_efficientnet_lite_pytorch(name: str) -> str:
    """Returns a name in the other package's files for one of timm's, by rules written down independently of ours."""
    groups = {"0": 0, "1": 1, "2": 2, "3": 3, "4": 5, "5": 6}  # number of the group's first block
    parts = name.split(".")
    if parts[0] != "blocks":
        return {"conv_stem": "_conv_stem", "bn1": "_bn0"}[parts[0]] + f".{parts[1]}"
    number = groups[parts[1]] + int(parts[2])
    layers = "conv_dw bn1 conv_pw bn2" if number == 0 else "conv_pw bn1 conv_dw bn2 conv_pwl bn3"
    theirs = "_depthwise_conv _bn1 _project_conv _bn2"
    theirs = theirs if number == 0 else f"_expand_conv _bn0 {theirs}"
    return f"_blocks.{number}.{dict(zip(layers.split(), theirs.split(), strict=True))[parts[3]]}.{parts[4]}"


def test_both_namings_of_published_files_are_read_and_the_classifier_is_left_out(caplog):
    model = EfficientNetLite(TINY, rngs=InitialKeys(0))
    arrays = weights.to_torch(model)
    classifier = {"_conv_head.weight": np.ones(1), "_bn1.bias": np.ones(1), "_fc.weight": np.ones(1)}
    other = {names_of_efficientnet_lite_pytorch(name): array for name, array in arrays.items()} | classifier
    timm = arrays | {"conv_head.weight": np.ones(1), "bn2.bias": np.ones(1), "classifier.weight": np.ones(1)}
    for file in (other, timm):
        with caplog.at_level(logging.INFO):
            read = model.published_arrays(file)
        assert "leaves out what the backbone does not have: conv_head.weight, bn2.bias, classifier" in caplog.text
        caplog.clear()
        weights.check_torch(model, read)
        assert all((read[name] == arrays[name]).all() for name in arrays)


def test_names_that_have_no_place_are_found():
    model = EfficientNetLite(TINY, rngs=InitialKeys(0))
    arrays = weights.to_torch(model) | {"_blocks.7._bn1.weight": np.ones(8)}
    with pytest.raises(ValueError, match=r"unmatched: _blocks\.7\._bn1\.weight"):
        weights.check_torch(model, model.published_arrays(arrays))


def test_no_batch_norm_is_left_after_folding_and_the_maps_stay():
    images = jnp.asarray(np.random.default_rng(0).standard_normal((1, *SIZE, 3)), jnp.float32)
    model = tiny.randomise_batch_norms(MobileNet(SQUEEZED, rngs=InitialKeys(0)))
    folded = fold_batch_norm(model)
    assert not any(isinstance(module, BatchNorm) for _, module in nnx.iter_modules(folded))

    @jax.jit
    def both(model, folded):
        return nnx.view(model, use_running_average=True)(images), folded(images)

    for a, b in zip(*both(model, folded), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(a).max())


def test_onnx_files_hold_convolutions_with_groups():
    reference = pytest.importorskip("onnx.reference", reason="needs the extra onnx", exc_type=ModuleNotFoundError)
    from mtl_jax import to_onnx

    images = np.random.default_rng(0).standard_normal((1, *SIZE, 3)).astype(np.float32)
    model = nnx.view(tiny.randomise_batch_norms(MobileNet(SQUEEZED, rngs=InitialKeys(0))), use_running_average=True)
    with isolate.fused():
        converted = to_onnx.to_model(
            lambda images: dict(zip(STAGES, model(images), strict=True)),
            jax.ShapeDtypeStruct(images.shape, jnp.float32),
            STAGES,
            name="images",
            calls={},
        )
    convs = [node for node in converted.graph.node if node.op_type == "Conv"]
    groups = [attribute.i for node in convs for attribute in node.attribute if attribute.name == "group"]
    assert sorted(group for group in groups if group > 1) == [8, 32, 32, 32]
    results = reference.ReferenceEvaluator(converted).run(None, {"images": images})
    for ours, theirs in zip(jax.jit(lambda x: model(x))(jnp.asarray(images)), results, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(ours).max())


@pytest.mark.parametrize("name", ["baseline", "cross_stitch", slow("nddr_cnn"), slow("pad_net"), slow("mti_net")])
@pytest.mark.usefixtures("tiny_mobile")
def test_models(name):
    """Outputs and gradients of every model have the right shapes; nothing is computed."""
    size = (32, 64)
    config = Config(Data("nyud", ("semseg", "depth"), image_size=size), Model(name, "tiny_mobile", dtype="bfloat16"))
    graphdef, state = nnx.split(nnx.eval_shape(lambda: models.build(config)))

    def loss(state, images):
        outputs = models.training_view(nnx.merge(graphdef, state), nnx.Rngs(0))(images)
        return sum(x.astype(jnp.float32).mean() for x in outputs.logits.values()), outputs.logits

    images = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
    gradient, outputs = jax.eval_shape(jax.grad(loss, has_aux=True, allow_int=True), state, images)
    assert {task: (x.shape, x.dtype) for task, x in outputs.items()} == {
        "semseg": ((2, *size, 40), jnp.bfloat16),
        "depth": ((2, *size, 1), jnp.bfloat16),
    }
    assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, state)


@pytest.mark.usefixtures("tiny_mobile")
def test_stages_recompute():
    model = nnx.eval_shape(lambda: backbones.build("tiny_mobile", rngs=InitialKeys(0)))
    remat.select(model, ("conv", "stage3"))
    graphdef, state = nnx.split(model)
    images = jax.ShapeDtypeStruct((1, *SIZE, 3), jnp.float32)
    program = jax.make_jaxpr(lambda state, images: nnx.merge(graphdef, state)(images))(state, images)
    assert sum("remat" in str(equation.primitive) for equation in program.eqns) == 2


def test_mtan_is_refused():
    config = Config(Data("nyud", ("semseg", "depth"), image_size=(64, 64)), Model("mtan", "mobilenetv2_100"))
    with pytest.raises(ValueError, match="mtan attends inside the layers of a ResNet"):
        nnx.eval_shape(lambda: models.build(config))
