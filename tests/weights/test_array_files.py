import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from mtl_jax import weights

ARRAYS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a.num_batches_tracked": np.array(3)}


def _assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.dtype == other[name].dtype
        np.testing.assert_array_equal(value, other[name])


@pytest.mark.parametrize("suffix", weights.WRITABLE)
def test_round_trip(tmp_path, suffix):
    arrays = ARRAYS | {"transposed": ARRAYS["a.weight"].T, "empty": np.zeros((0, 3), np.float16)}
    weights.write_arrays(tmp_path / f"x{suffix}", arrays)
    _assert_same(weights.read_arrays(tmp_path / f"x{suffix}"), arrays)


def test_bfloat16_becomes_float32(tmp_path):
    values = np.array([0.0, 1.0, -2.5], np.float32)
    save_file({"x": values.astype(ml_dtypes.bfloat16)}, tmp_path / "x.safetensors")
    _assert_same(weights.read_arrays(tmp_path / "x.safetensors"), {"x": values})


def test_an_array_by_itself_is_no_archive(tmp_path):
    with (tmp_path / "x.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match=r"cannot be read as \.npz"):
        weights.read_arrays(tmp_path / "x.npz")


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"ends in '\.bin'; \.safetensors and \.npz files are written"):
        weights.write_arrays(tmp_path / "x.bin", ARRAYS)


def test_the_prefix_of_data_parallel_goes_where_all_have_it(tmp_path):
    weights.write_arrays(tmp_path / "all.npz", {f"module.{name}": value for name, value in ARRAYS.items()})
    _assert_same(weights.read_arrays(tmp_path / "all.npz"), ARRAYS)
    mixed = ARRAYS | {"module.a.weight": np.zeros(3)}
    weights.write_arrays(tmp_path / "mixed.npz", mixed)
    _assert_same(weights.read_arrays(tmp_path / "mixed.npz"), mixed)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state, "epoch": 3, "optimizer": {"state": {}, "param_groups": []}},
        lambda state: {"epoch": 3, "state_dict": {"model": state}},
        lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
    ],
)
@pytest.mark.parametrize("name", ["x.pth", "x.pt", "x.pth.tar"])
def test_torch_checkpoints(tmp_path, torch, wrap, name):
    torch.save(wrap({key: torch.from_numpy(value) for key, value in ARRAYS.items()}), tmp_path / name)
    _assert_same(weights.read_arrays(tmp_path / name), ARRAYS)


def test_checkpoints_without_named_arrays(tmp_path, torch):
    for content, message in [
        ({"epoch": 3, "net": {"a": torch.ones(2)}}, r"more than named arrays \('epoch': int, 'net': dict of 1\)"),
        ({"model": {}}, "holds no arrays"),
        (torch.ones(2), "holds ndarray instead of named arrays"),
        ([torch.ones(2)], "holds list of 1 instead of named arrays"),
    ]:
        torch.save(content, tmp_path / "x.pth")
        with pytest.raises(ValueError, match=message):
            weights.read_arrays(tmp_path / "x.pth")


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights at"):
        weights.read_arrays(tmp_path / "none.npz")
    for name, content, message in [
        ("a.bin", b"", r"a \.bin file; weights are read from \.safetensors, \.npz, \.pth, \.pt, \.pth\.tar"),
        ("a.pth", b"", r"cannot be read as a torch checkpoint"),
        ("a.safetensors", b"xx", r"cannot be read as \.safetensors"),
        ("a.npz", b"PK truncated", r"cannot be read as \.npz"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            weights.read_arrays(tmp_path / name)
