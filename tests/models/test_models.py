import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_jax import backbones, models, tasks
from mtl_jax.config import Config, Data, Model
from mtl_jax.heads import HRNetHead
from mtl_jax.losses import Objective
from mtl_jax.models.mtinet import MTINet
from mtl_jax.models.multi_task import Baseline
from tests.tiny import TinyBackbone

NYUD = ("semseg", "normals", "edge", "depth")


def _mti_net(dtype=None, scales=2) -> MTINet:
    rngs = nnx.Rngs(0)
    backbone = TinyBackbone(scales=scales, rngs=rngs, dtype=dtype)
    outputs = tasks.num_channels(NYUD, "nyud")
    heads = {t: HRNetHead(backbone.channels, outputs[t], dtype=dtype, rngs=rngs) for t in ("semseg", "depth")}
    return MTINet(backbone, outputs, heads, dtype=dtype, rngs=rngs)


def _batch(size=(64, 64)) -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    shape = (2, *size)
    normals = rng.standard_normal((*shape, 3))
    batch = {
        "image": rng.standard_normal((*shape, 3)),
        "semseg": rng.integers(0, 40, (*shape, 1)),
        "normals": normals / np.linalg.norm(normals, axis=-1, keepdims=True),
        "edge": rng.random((*shape, 1)) < 0.1,
        "depth": rng.uniform(1, 5, (*shape, 1)),
    }
    return {k: jnp.asarray(v, jnp.int32 if k == "semseg" else jnp.float32) for k, v in batch.items()}


@pytest.mark.parametrize("size", [(64, 96), (72, 100)])  # 32 divides the first, not the second
def test_mti_net_predicts_at_all_scales(size):
    shapes = nnx.eval_shape(lambda: _mti_net(scales=4)(jnp.zeros((2, *size, 3))))
    deep = shapes.pop("deep_supervision")
    assert {task: x.shape for task, x in shapes.items()} == {"semseg": (2, *size, 40), "depth": (2, *size, 1)}
    assert set(deep) == {f"scale_{k}" for k in range(4)}
    for scale, predictions in deep.items():
        stride = 4 * 2 ** int(scale[-1])
        expected = tuple(-(-side // stride) for side in size)
        assert {t: x.shape for t, x in predictions.items()} == {
            t: (2, *expected, n) for t, n in tasks.num_channels(NYUD, "nyud").items()
        }


def test_every_parameter_of_mti_net_gets_a_finite_gradient():
    graphdef, state = nnx.split(_mti_net())
    objective = Objective(("semseg", "depth"))

    @jax.jit
    def gradients(state, batch):
        model = nnx.merge(graphdef, state)
        return nnx.grad(lambda model: objective(model(batch["image"]), batch)[0])(model)

    leaves = nnx.to_flat_state(gradients(state, _batch()))
    assert len(leaves) == len(nnx.to_flat_state(nnx.state(_mti_net(), nnx.Param)))
    for path, leaf in leaves:
        assert np.isfinite(leaf[...]).all(), path
        # A squeeze-and-excitation unit of a fresh network can be off for both images.
        assert np.abs(leaf[...]).max() > 0 or "squeeze" in path, path


def _baseline() -> Baseline:
    rngs = nnx.Rngs(0)
    backbone = TinyBackbone(rngs=rngs)
    return Baseline(backbone, {t: HRNetHead(backbone.channels, 2, rngs=rngs) for t in ("edge", "depth")})


def test_eval_is_deterministic_and_eager_equals_jit():
    model = nnx.view(_baseline(), use_running_average=True)
    images = _batch()["image"]
    graphdef, state = nnx.split(model)

    @jax.jit
    def compiled(state, images):
        return nnx.merge(graphdef, state)(images)

    first, second, eager = compiled(state, images), compiled(state, images), model(images)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5), first, eager)


def test_bfloat16_is_close_to_float32():
    def predict(dtype):
        model = nnx.view(_mti_net(dtype), use_running_average=True)
        graphdef, state = nnx.split(model)
        return jax.jit(lambda state, images: nnx.merge(graphdef, state)(images))(state, _batch()["image"])

    exact, rough = predict(None), predict(jnp.bfloat16)
    for task in ("semseg", "depth"):
        assert rough[task].dtype == jnp.bfloat16
        a, b = np.asarray(exact[task], np.float32), np.asarray(rough[task], np.float32)
        assert np.abs(a - b).mean() < 0.05 * a.std()  # 8 bits of mantissa through about 20 layers


def test_main_tasks_must_be_auxiliary_tasks():
    config = Config(Data("nyud", ("semseg", "depth"), ("semseg", "edge")))
    with pytest.raises(ValueError, match="missing: depth"):
        nnx.eval_shape(lambda: models.build(config))


def test_baseline_predicts_every_task_at_full_size():
    shapes = nnx.eval_shape(lambda: _baseline()(jnp.zeros((2, 64, 64, 3))))
    assert {t: x.shape for t, x in shapes.items()} == {"edge": (2, 64, 64, 2), "depth": (2, 64, 64, 2)}


@pytest.mark.parametrize("name", ["single_task", "baseline", "mti_net"])
@pytest.mark.parametrize("backbone", list(backbones.BACKBONES))
def test_every_model_builds_on_every_backbone(name, backbone):
    names = ("semseg",) if name == "single_task" else ("semseg", "depth")
    config = Config(Data("nyud", names), Model(name, backbone))
    shapes = nnx.eval_shape(lambda: models.build(config)(jnp.zeros((2, 64, 64, 3))))
    assert {t: shapes[t].shape[-1] for t in names} == tasks.num_channels(names, "nyud")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Config(Data("nyud", ("semseg",)), Model("resnet")), "unknown model 'resnet'; the models are single_task"),
        (
            Config(Data("nyud", ("semseg",)), Model("baseline", "vgg")),
            "unknown backbone 'vgg'; the backbones are hrnet",
        ),
        (Config(Data("nyud", ("semseg", "depth")), Model("single_task")), "takes one task, data.tasks names 2"),
        (Config(Data("nyud", ("depth",), ("edge",)), Model("baseline")), "no intermediate predictions .* edge"),
        (Config(Data("nyud", ("sal",)), Model("baseline")), "data set 'nyud' has no task sal"),
    ],
)
def test_impossible_models_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(lambda: models.build(config))
