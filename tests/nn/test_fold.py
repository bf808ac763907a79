import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_jax import models, nn
from mtl_jax.config import Config, Data, Model
from mtl_jax.nn import BatchNorm, Bottleneck, Conv, Sequential, fold_batch_norm
from tests import tiny
from tests.marks import slow

HEADS = [("baseline", "tiny_resnet"), slow("baseline", "tiny_resnet_dilated")]  # HRNet's and DeepLab's


def build(name: str, backbone: str) -> models.MultiTaskModel:
    main = ("depth",) if name == "single_task" else ("semseg", "depth")
    aux = ("semseg", "edge", "depth") if name in ("pad_net", "mti_net") else ()
    return models.build(Config(Data("nyud", main, aux), Model(name, backbone)))


def count(model: nnx.Module) -> int:
    return sum(isinstance(module, BatchNorm) for _, module in nnx.iter_modules(model))


def predict(model: nnx.Module, images):
    graphdef, state = nnx.split(models.evaluation_view(model))
    return jax.jit(lambda state, images: nnx.merge(graphdef, state)(images))(state, images)


def random(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).standard_normal(shape), jnp.float32)


def deviation(folded, model) -> float:
    """The largest of all outputs' root mean squared deviations, relative to the output's own root mean square."""

    def of_one(a, b):
        assert a.dtype == b.dtype
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        return np.sqrt(np.square(a - b).mean() / np.square(b).mean())

    return max(jax.tree.leaves(jax.tree.map(of_one, folded, model)))


def cast(model: nnx.Module, dtype) -> nnx.Module:
    nnx.update(model, jax.tree.map(lambda x: x.astype(dtype), nnx.state(model)))
    return model


@pytest.mark.parametrize(
    ("name", "backbone"),
    [pytest.param(*case, marks=() if case[0] == "mtan" else pytest.mark.slow) for case in tiny.NETWORKS],
)
def test_no_batch_norm_is_left(name, backbone):
    def both() -> tuple[nnx.Module, nnx.Module]:
        model = build(name, backbone)
        return model, fold_batch_norm(model)

    model, folded = nnx.eval_shape(both)
    assert count(model) > 20
    assert count(folded) == 0


@pytest.mark.parametrize(("name", "backbone"), [*HEADS, *(slow(*case) for case in tiny.NETWORKS)])
def test_the_predictions_stay(name, backbone, monkeypatch):
    tiny.register_backbones(monkeypatch)
    model = tiny.randomise_batch_norms(build(name, backbone))
    images = random(1, 64, 64, 3)
    with jax.enable_x64(True):
        cast(model, jnp.float64)
        wanted = predict(model, images.astype(jnp.float64))
        # Some forty layers of rounding errors; a mean that is forgotten changes the first digits.
        assert deviation(predict(fold_batch_norm(model), images.astype(jnp.float64)), wanted) < 1e-12
    if (name, backbone) in tiny.NETWORKS:
        cast(model, jnp.float32)
        assert deviation(predict(fold_batch_norm(model), images), predict(model, images)) < 1e-5


def test_float32_and_bfloat16():
    def blocks(dtype=None) -> nnx.Module:
        with nn.compute_dtype(dtype):
            layers = [Bottleneck(width, 8, rngs=nnx.Rngs(0)) for width in (4, 32)]
        return tiny.randomise_batch_norms(Sequential(layers))

    x = random(2, 9, 9, 4)
    exact = predict(blocks(), x)
    assert deviation(predict(fold_batch_norm(blocks()), x), exact) < 1e-6
    rough = jnp.dtype(jnp.bfloat16)
    outputs = [predict(model, x) for model in (blocks(rough), fold_batch_norm(blocks(rough)))]
    assert {out.dtype for out in outputs} == {rough}
    rounded, folded = (deviation(out.astype(jnp.float32), exact) for out in outputs)
    assert folded < 2 * rounded  # both round to 8 bits at every layer, but not the same numbers


@pytest.mark.parametrize("use_bias", [False, True])
def test_kernel_and_bias_by_hand(use_bias):
    conv, norm = Conv(2, 1, 1, use_bias=use_bias, rngs=nnx.Rngs(0)), BatchNorm(1)
    conv.kernel[...] = jnp.array([3.0, 5.0]).reshape(1, 1, 2, 1)
    if use_bias:
        conv.bias[...] = jnp.array([2.0])
    norm.scale[...], norm.bias[...] = jnp.array([4.0]), jnp.array([7.0])
    norm.mean[...], norm.var[...] = jnp.array([-1.0]), jnp.array([4 - 1e-5])
    folded = fold_batch_norm(Sequential([conv, norm, nnx.relu]))
    np.testing.assert_allclose(folded[0].kernel[...].ravel(), [6, 10], rtol=1e-6)  # times 4 / sqrt(4)
    np.testing.assert_allclose(folded[0].bias[...], [13 if use_bias else 9], rtol=1e-6)  # 2 (bias + 1) + 7
    np.testing.assert_allclose(folded(jnp.ones((1, 1, 1, 2))).ravel(), [29 if use_bias else 25], rtol=1e-6)


def test_the_model_itself_stays():
    block = tiny.randomise_batch_norms(Bottleneck(4, 2, rngs=nnx.Rngs(0)))
    before = jax.tree.map(np.asarray, nnx.as_pure(nnx.state(block)))
    fold_batch_norm(block)
    assert count(block) == 4
    jax.tree.map(np.testing.assert_array_equal, before, nnx.as_pure(nnx.state(block)))


def test_a_batch_norm_without_convolution_stays():
    model = Sequential([BatchNorm(4), Conv(4, 4, 1, rngs=nnx.Rngs(0)), nnx.relu, BatchNorm(4), BatchNorm(4)])
    tiny.randomise_batch_norms(model)
    folded = fold_batch_norm(model)
    assert count(folded) == 3
    x = random(2, 3, 3, 4)
    np.testing.assert_array_equal(models.evaluation_view(folded)(x), models.evaluation_view(model)(x))


def test_what_does_not_go_together_is_refused():
    conv = Conv(4, 4, 1, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"batch norm 0\.1 cannot be folded: .* is used elsewhere"):
        fold_batch_norm(nnx.List([Sequential([conv, BatchNorm(4)]), Sequential([conv, nnx.relu])]))
    norm = BatchNorm(4)
    with pytest.raises(ValueError, match=r"batch norm 1 cannot be folded: .* is used elsewhere"):
        fold_batch_norm(Sequential([conv, norm, nnx.relu, norm]))
    with pytest.raises(ValueError, match=r"batch norm 1 of 3 channels in None .* convolution with 4 in None"):
        fold_batch_norm(Sequential([conv, BatchNorm(3)]))
    with pytest.raises(ValueError, match=r"batch norm 1 of 4 channels in bfloat16 .* with 4 in None"):
        fold_batch_norm(Sequential([conv, BatchNorm(4, dtype=jnp.dtype(jnp.bfloat16))]))


def test_a_folded_model_does_not_train():
    folded = fold_batch_norm(Sequential([Conv(4, 4, 1, rngs=nnx.Rngs(0)), BatchNorm(4)]))
    with pytest.raises(ValueError, match="only predicts; train the model that it was made from"):
        models.training_view(folded, nnx.Rngs(dropout=0))
