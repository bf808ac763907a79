import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from mtl_jax import weights
from mtl_jax.heads import HRNetHead
from mtl_jax.models.multi_task import Baseline
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


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_pretrained_backbones_shed_prefix_and_classifier(tmp_path, suffix):
    model = _model(0)
    arrays = {
        f"module.{key.removeprefix('backbone.')}": value
        for key, value in weights.to_torch(_model(1)).items()
        if key.startswith("backbone.")
    }
    arrays["module.classifier.weight"] = np.zeros((10, 4), np.float32)
    path = tmp_path / f"backbone{suffix}"
    if suffix == ".npz":
        np.savez(path, **arrays)
    else:
        save_file(arrays, path)
    weights.load_pretrained(model.backbone, str(path), "tiny")
    np.testing.assert_array_equal(weights.to_torch(model)["backbone.stem.weight"], arrays["module.stem.weight"])


def test_unreadable_weights_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights at"):
        weights.read_arrays(tmp_path / "none.npz")
    (tmp_path / "a.pth").write_bytes(b"")
    with pytest.raises(ValueError, match=r"scripts/convert\.py"):
        weights.read_arrays(tmp_path / "a.pth")
    (tmp_path / "a.safetensors").write_bytes(b"xx")
    with pytest.raises(ValueError, match=r"cannot be read as \.safetensors"):
        weights.read_arrays(tmp_path / "a.safetensors")
    (tmp_path / "a.npz").write_bytes(b"PK truncated")
    with pytest.raises(ValueError, match=r"cannot be read as \.npz"):
        weights.read_arrays(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="no ImageNet weights are known for backbone 'hrnet_w32'"):
        weights.pretrained_path("imagenet", "hrnet_w32")
