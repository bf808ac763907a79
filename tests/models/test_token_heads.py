"""Models whose heads read tokens of a transformer, and heads and regressions by task."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import mtl_jax
from mtl_jax import backbones, models
from mtl_jax.backbones import vit_variants
from mtl_jax.backbones.vit import build_vit
from mtl_jax.config import Config, Data, Model, validate
from mtl_jax.heads import DPTHead, HRNetHead, RegressionHead
from mtl_jax.heads.regression import Bins
from tests import tiny
from tests.marks import slow

SIZE = (36, 44)
TASKS = ("semseg", "normals", "edge", "depth")
CHANNELS = {"semseg": 40, "normals": 3, "edge": 1, "depth": 1}
TINY = replace(
    vit_variants.VARIANTS["dinov2_small"], width=16, heads=2, outputs=(1, 2, 3, 4), patch=4, grid=3, hidden=1
)
DINOV3 = replace(TINY, grid=0, registers=4)


@pytest.fixture(autouse=True)
def tiny_backbones(monkeypatch):
    tiny.register_backbones(monkeypatch)
    for name, variant in {"tiny_vit": TINY, "tiny_dinov3": DINOV3}.items():
        monkeypatch.setitem(vit_variants.VARIANTS, name, variant)
        monkeypatch.setitem(backbones.BACKBONES, name, build_vit)


def config(name="baseline", backbone="tiny_vit", head="dpt:features=8", tasks=TASKS, **model):
    return Config(Data("nyud", tasks, image_size=SIZE), Model(name, backbone, head, **model))


def abstract(found):
    return nnx.eval_shape(lambda: models.build(found))


def shapes(found):
    """{task: shape of its logits}; nothing is computed."""
    graphdef, state = nnx.split(abstract(found))
    images = jax.ShapeDtypeStruct((2, *SIZE, 3), jnp.float32)
    outputs = jax.eval_shape(lambda state, images: nnx.merge(graphdef, state)(images).logits, state, images)
    return {task: x.shape for task, x in outputs.items()}


@pytest.mark.parametrize(
    ("name", "backbone", "head"),
    [
        ("baseline", "tiny_dinov3", "dpt:features=8"),
        slow("cross_stitch", "tiny_vit", "linear"),
        slow("cross_stitch", "tiny_vit", "dpt:features=8"),
        slow("nddr_cnn", "tiny_vit", "bn_linear"),
    ],
)
def test_every_task_has_such_a_head(name, backbone, head):
    found = config(name, backbone, head, regression={"depth": "bins:number=4"})
    assert shapes(validate(found)) == {task: (2, *SIZE, number) for task, number in CHANNELS.items()}


def test_a_single_task():
    assert shapes(config("single_task", tasks=("normals",))) == {"normals": (2, *SIZE, 3)}


def test_heads_and_regressions_by_task():
    model = abstract(config(heads={"semseg": "bn_linear:levels=1"}, regression={"depth": "bins:number=4,high=8"}))
    decoders = model.decoders
    assert decoders["semseg"].conv_seg.kernel.shape == (1, 1, 16, 40)
    assert isinstance(decoders["normals"], DPTHead)
    assert isinstance(decoders["depth"], RegressionHead)
    assert decoders["depth"].regression == Bins(high=8, number=4)
    assert decoders["depth"].head.conv_depth.head[-1].kernel.shape[-1] == 4
    maps = abstract(config(backbone="tiny", head="", regression={"depth": "relu"}))
    assert isinstance(maps.decoders["depth"].head, HRNetHead)  # heads over maps may have a regression, too


def test_there_is_no_pyramid_for_heads_that_read_tokens():
    model = abstract(config())
    assert not [path for path, _ in nnx.iter_modules(model.backbone) if "pyramid" in path]
    factors = models.learning_rate_factors(model, {}, 0.5)
    assert factors["backbone.encoder.blocks.3.attn.qkv.kernel"] == 0.5
    assert factors["decoders.edge.project.conv.kernel"] == 1


def test_a_frozen_transformer_leaves_the_heads_to_train():
    found = config(head="bn_linear", regression={"depth": "relu"})
    model = models.freeze(abstract(found), ["backbone"])
    assert {path[0] for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))} == {"decoders"}
    view = models.training_view(model, nnx.Rngs(0))
    assert not view.decoders["semseg"].bn.use_running_average
    assert not view.decoders["depth"].clamps
    assert models.evaluation_view(model).decoders["depth"].clamps


@pytest.mark.slow
@pytest.mark.parametrize("head", ["dpt:features=8", "linear", "bn_linear"])
def test_every_parameter_learns(head):
    """All but the final norm, where heads read tokens before it."""
    model = models.build(config(head=head, tasks=("semseg", "depth"), regression={"depth": "bins:number=4"}))
    graphdef, parameters, rest = nnx.split(model, nnx.Param, ...)
    images = jnp.asarray(np.random.default_rng(0).standard_normal((2, *SIZE, 3)), jnp.float32)

    def loss(parameters):
        outputs = models.training_view(nnx.merge(graphdef, parameters, rest, copy=True), nnx.Rngs(0))(images)
        weigh = np.random.default_rng(1).standard_normal
        return sum((x * weigh(x.shape).astype(np.float32)).mean() for x in outputs.logits.values())

    gradients = nnx.to_flat_state(nnx.as_pure(jax.jit(jax.grad(loss))(parameters)))
    assert all(np.isfinite(x).all() for _, x in gradients)
    still = {path[:3] for path, x in gradients if not np.abs(x).max()}
    assert still == (set() if head == "bn_linear" else {("backbone", "encoder", "norm")})


def test_heads_recompute_their_activations():
    graphdef, state = nnx.split(
        abstract(config(tasks=("depth", "edge"), regression={"depth": "relu"}, remat=("heads",)))
    )
    images = jax.ShapeDtypeStruct((1, *SIZE, 3), jnp.float32)
    program = jax.make_jaxpr(lambda state, x: nnx.merge(graphdef, state)(x))(state, images)
    assert sum("remat" in str(equation.primitive) for equation in program.eqns) == 2


def test_networks_in_python_take_heads_and_regressions():
    model = mtl_jax.create_model(
        "baseline",
        "tiny_vit",
        tasks=("depth", "edge"),
        image_size=SIZE,
        head="linear",
        heads={"edge": "bn_linear"},
        regression={"depth": "relu"},
    )
    assert hasattr(model.decoders["edge"], "bn")
    assert isinstance(model.decoders["depth"], RegressionHead)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "tiny"}, r"'tiny', and a TinyBackbone has no tokens, which the head 'dpt:features=8' reads"),
        ({"heads": {"edge": "hrnet"}}, r"semseg the head 'dpt:features=8', .* tokens .* edge the head 'hrnet'"),
        ({"head": "", "heads": {"edge": "linear"}}, r"edge the head 'linear', .* tokens .* semseg the head 'default'"),
        ({"name": "mti_net"}, "mti_net computes with maps, and the head 'dpt:features=8' reads the tokens"),
        ({"name": "pad_net", "head": "", "regression": {"depth": "bins"}}, "pad_net has its own heads; model.regressi"),
        ({"name": "pad_net", "head": "", "heads": {"depth": "hrnet"}}, "pad_net has its own heads; model.heads is"),
    ],
)
def test_heads_that_do_not_fit_the_model_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        abstract(config(**options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "dtp"}, r"model.head is 'dtp': unknown head 'dtp'; .* Did you mean dpt"),
        ({"heads": {"edge": "dpt:width=3"}}, r"model.heads.edge is 'dpt:width=3': 'width=3' is no parameter=value"),
        ({"heads": {"sal": "dpt"}}, "model.heads names sal; the main tasks of this configuration are semseg, normals"),
        ({"regression": {"sal": "bins"}}, "model.regression names sal; the main tasks of this configuration are"),
        ({"regression": {"depth": "bins:low=20"}}, "model.regression.depth is 'bins:low=20': low is 20.0 and high 10"),
        ({"regression": {"normals": "bins"}}, "model.regression names normals, whose labels are no real values"),
    ],
)
def test_impossible_configurations_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        validate(config(**options))


def test_an_empty_regression_is_none():
    found = validate(config(regression={"depth": "", "normals": ""}))
    assert isinstance(abstract(found).decoders["depth"], DPTHead)
