import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_jax import weights
from mtl_jax.heads import HRNetHead
from mtl_jax.models.multi_task import Baseline
from mtl_jax.nn import Conv
from tests.tiny import TinyBackbone


def _model(seed=0):
    rngs = nnx.Rngs(seed)
    backbone = TinyBackbone(rngs=rngs)
    return Baseline(backbone, {"edge": HRNetHead(backbone.channels, 1, rngs=rngs)})


def test_round_trip_is_bit_exact():
    arrays, other = weights.to_torch(_model(0)), _model(1)
    assert arrays["decoders.edge.last_layer.3.weight"].shape == (1, 48, 1, 1)
    weights.load_torch(other, arrays | {"decoders.edge.last_layer.1.num_batches_tracked": np.array(3)})
    for key, value in weights.to_torch(other).items():
        np.testing.assert_array_equal(value, arrays[key], err_msg=key)


def test_every_misfit_is_listed_and_nothing_changes():
    model = _model(0)
    before = weights.to_torch(model)
    arrays = dict(before)
    arrays["backbone.extra.weight"] = np.zeros(3)
    del arrays["decoders.edge.last_layer.0.bias"]
    arrays["backbone.stem.weight"] = np.zeros((3, 3, 5, 5))
    with pytest.raises(ValueError, match=r"do not fit Baseline \(3 problems\)") as error:
        weights.load_torch(model, arrays)
    assert "unmatched: backbone.extra.weight (3,)" in str(error.value)
    assert "unfilled: decoders.edge.last_layer.0.bias" in str(error.value)
    assert "shape: backbone.stem.weight is (3, 3, 5, 5), the model has (3, 3, 3, 3)" in str(error.value)
    for key, value in weights.to_torch(model).items():
        np.testing.assert_array_equal(value, before[key], err_msg=key)


def test_integers_are_no_weights():
    arrays = weights.to_torch(_model())
    arrays["decoders.edge.last_layer.0.bias"] = np.zeros(48, np.int64)
    with pytest.raises(ValueError, match=r"dtype: decoders\.edge\.last_layer\.0\.bias is int64, the model has float32"):
        weights.load_torch(_model(), arrays)


def test_a_wrong_rank_is_listed_too():
    arrays = weights.to_torch(_model())
    arrays["decoders.edge.last_layer.0.bias"] = np.zeros((2, 3, 4, 5))
    with pytest.raises(ValueError, match=r"last_layer\.0\.bias is \(2, 3, 4, 5\), the model has \(48,\)"):
        weights.load_torch(_model(), arrays)


def test_weights_are_checked_against_a_model_without_arrays():
    abstract = nnx.eval_shape(_model)
    arrays = weights.to_torch(_model())
    weights.check_torch(abstract, arrays)
    del arrays["backbone.stem.weight"]
    with pytest.raises(ValueError, match=r"unfilled: backbone\.stem\.weight"):
        weights.check_torch(abstract, arrays)


class _Fusion(nnx.Module):
    """The names of NDDR-CNN and of a cross-stitch unit."""

    def __init__(self, rngs):
        units = {stage: nnx.Dict({"layer": Conv(2, 2, 1, rngs=rngs)}) for stage in ("conv", "layer1", "layer10")}
        self.nddr = nnx.Dict(units)
        self.cross_stitch = nnx.Dict({"layer1": nnx.Dict({"param": nnx.Param(jnp.ones(3))})})


def test_modules_with_other_names_in_torch():
    arrays, other = weights.to_torch(_Fusion(nnx.Rngs(0))), _Fusion(nnx.Rngs(1))
    assert set(arrays) == {
        "nddr.conv.layer.weight",
        "nddr.layer1_without_conv.layer.weight",
        "nddr.layer10.layer.weight",
        "cross_stitch.layer1.param",
    }
    weights.load_torch(other, arrays)
    for key, value in weights.to_torch(other).items():
        np.testing.assert_array_equal(value, arrays[key], err_msg=key)
    arrays["nddr.layer1.layer.weight"] = arrays.pop("nddr.layer1_without_conv.layer.weight")
    with pytest.raises(ValueError, match=r"unmatched: nddr\.layer1\.layer\.weight"):
        weights.load_torch(other, arrays)


class _Foreign(nnx.Module):
    """Parameters whose shapes resemble kernels, and layers of flax."""

    def __init__(self, rngs):
        self.position = nnx.Param(rngs.normal((1, 4, 5, 6)))
        self.embedding = nnx.Param(rngs.normal((7, 5)))
        self.temperature = nnx.Param(jnp.ones(()))
        self.conv = nnx.Conv(2, 3, (5, 7), rngs=rngs)
        self.linear = nnx.Linear(2, 3, rngs=rngs)


def test_kernels_are_transposed_and_other_parameters_are_not():
    model, other = _Foreign(nnx.Rngs(0)), _Foreign(nnx.Rngs(1))
    arrays = weights.to_torch(model)
    assert {key: value.shape for key, value in arrays.items()} == {
        "position": (1, 4, 5, 6),
        "embedding": (7, 5),
        "temperature": (),
        "conv.weight": (3, 2, 5, 7),
        "conv.bias": (3,),
        "linear.weight": (3, 2),
        "linear.bias": (3,),
    }
    assert all(value.flags.c_contiguous for value in arrays.values())
    np.testing.assert_array_equal(arrays["linear.weight"], model.linear.kernel[...].T)
    weights.load_torch(other, arrays)
    for key, value in weights.to_torch(other).items():
        np.testing.assert_array_equal(value, arrays[key], err_msg=key)


def test_kernels_of_unknown_modules_are_refused():
    attention = nnx.MultiHeadAttention(2, 4, decode=False, rngs=nnx.Rngs(0))
    with pytest.raises(
        ValueError, match=r"LinearGeneral\.kernel with 3 axes .*register_layout\(LinearGeneral, \{'kernel'"
    ):
        weights.to_torch(attention)
    with pytest.raises(ValueError, match=r"Conv\.kernel with 3 axes in torch is not known"):
        weights.to_torch(nnx.Conv(2, 3, (5,), rngs=nnx.Rngs(0)))


def test_a_layout_can_be_registered():
    class Transposed(nnx.Module):
        def __init__(self, rngs):
            self.kernel = nnx.Param(rngs.normal((2, 3, 4)))

    with pytest.raises(ValueError, match=r"the layout of Transposed\.kernel is \(0, 0, 1\); give a permutation"):
        weights.register_layout(Transposed, {"kernel": (0, 0, 1)})
    weights.register_layout(Transposed, {"kernel": (2, 0, 1)})
    model, other = Transposed(nnx.Rngs(0)), Transposed(nnx.Rngs(1))
    arrays = weights.to_torch(model)
    assert arrays["weight"].shape == (4, 2, 3)
    weights.load_torch(other, arrays)
    np.testing.assert_array_equal(other.kernel[...], model.kernel[...])
