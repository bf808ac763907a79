import argparse
import collections
import io
import random
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from mtl_jax import weights
from tests.full_disk import small_files


def _zipped(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


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
    with pytest.raises(ValueError, match=r"x\.npz begins with b'\\x93NUMPY"):
        weights.read_arrays(tmp_path / "x.npz")


@pytest.mark.parametrize("suffix", weights.WRITABLE)
def test_a_full_disk_is_told_by_the_file_and_leaves_no_half(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    weights.write_arrays(path, ARRAYS)
    before = path.read_bytes()
    with small_files(), pytest.raises(OSError, match=rf"File too large: '{path}'"):
        weights.write_arrays(path, ARRAYS | {"more": np.zeros(9)})
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


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


class _Settings(dict):
    """A dictionary with attributes, of a class that the reader does not know."""

    def __init__(self, **items):
        super().__init__(items)
        self.__dict__ = self


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_objects_beside_the_weights_do_not_matter(tmp_path, torch, zipped, protocol):
    state = {key: torch.from_numpy(value) for key, value in ARRAYS.items()}
    beside = {
        "optimizer": torch.optim.SGD([torch.nn.Parameter(torch.ones(3))], 0.1, momentum=0.9).state_dict(),
        "epoch": 3,
        "best_result": {"semseg": {"mIoU": np.float64(0.5)}, "all": np.arange(3)},
        "args": argparse.Namespace(lr=0.1, out=Path("x")),
        "hyper_parameters": _Settings(a=_Settings(b=1)),
        "sizes": [torch.Size([1, 2]), torch.device("cpu"), torch.float32, {1, 2}, frozenset({3}), 1j, slice(3)],
        "history": collections.defaultdict(list, {(1, "a"): [0.5]}),
        "counts": collections.Counter("aab"),
        "collate": io.open_code,
        "rng": torch.get_rng_state(),
        "scaler": torch.ones(2, dtype=torch.uint16),
        "callbacks": {_Settings: collections.deque([1])},
    }
    for content in ({"model": state, **beside}, {**beside, "state_dict": collections.OrderedDict(state)}):
        torch.save(content, tmp_path / "x.pth", pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
        _assert_same(weights.read_arrays(tmp_path / "x.pth"), ARRAYS)


@pytest.mark.parametrize("suffix", [".pth", ".PTH", ".pt", ".ckpt", ".bin", ".tar", ".SafeTensors", ".npz", ""])
def test_the_content_tells_the_form(tmp_path, torch, suffix):
    state = {key: torch.from_numpy(value) for key, value in ARRAYS.items()}
    torch.save(state, tmp_path / "zip")
    torch.save(state, tmp_path / "legacy", _use_new_zipfile_serialization=False)
    save_file(ARRAYS, tmp_path / "safetensors")
    np.savez(tmp_path / "npz.npz", **ARRAYS)
    np.savez_compressed(tmp_path / "compressed.npz", **ARRAYS)
    for form in ("zip", "legacy", "safetensors", "npz.npz", "compressed.npz"):
        if suffix != ".SafeTensors" or form == "safetensors":
            _assert_same(weights.read_arrays((tmp_path / form).rename(tmp_path / f"x{suffix}")), ARRAYS)


def test_an_entry_is_chosen(tmp_path, torch, caplog):
    caplog.set_level("INFO", "mtl_jax")
    plain, averaged = ({"a": torch.full((2,), x)} for x in (1.0, 2.0))
    torch.save({"state_dict": plain, "state_dict_ema": averaged}, tmp_path / "x.pth")
    _assert_same(weights.read_arrays(tmp_path / "x.pth"), {"a": np.ones(2, np.float32)})
    assert caplog.messages == [
        f"{tmp_path / 'x.pth'}: reads the entry state_dict; others with tensors are state_dict_ema"
    ]
    chosen = weights.read_arrays(tmp_path / "x.pth", "state_dict_ema")
    _assert_same(chosen, {"a": np.full(2, 2, np.float32)})
    weights.write_arrays(tmp_path / "x.npz", ARRAYS)
    with pytest.raises(ValueError, match=r"x\.npz is a npz file, which has no entries; .*'ema', out"):
        weights.read_arrays(tmp_path / "x.npz", "ema")


def test_checkpoints_without_named_arrays(tmp_path, torch):
    for content, message in [
        ({"epoch": 3, "net": {"a": torch.ones(2)}}, r"more than named arrays: net\. Name one .*pretrained_entry=NAME"),
        ({"model": {}}, "holds 'model': dict of 0 instead of named arrays"),
        ({"model": torch.nn.Linear(1, 1)}, r"holds 'model': torch\.nn\.modules\.linear\.Linear instead of"),
        ({"model": {"a.weight": torch.ones(2).to_sparse()}}, "holds 'model': dict of 1 instead of named arrays"),
        (torch.ones(2), "holds a single tensor instead of named arrays"),
        ([torch.ones(2)], "holds list of 1 instead of named arrays"),
    ]:
        torch.save(content, tmp_path / "x.pth")
        with pytest.raises(ValueError, match=message):
            weights.read_arrays(tmp_path / "x.pth")


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights at"):
        weights.read_arrays(tmp_path / "none.npz")
    for name, content, message in [
        ("a.bin", b"", r"a\.bin is empty; the forms that are read are torch \(zip or legacy\), safetensors and npz"),
        ("a.pth", b"<html>no", r"a\.pth begins with b'<html>no'; the forms that are read are torch"),
        ("a.safetensors", b"xx", r"a\.safetensors cannot be read as safetensors"),
        ("a.npz", b"PK truncated", r"a\.npz begins with b'PK trunca'; the forms"),
        ("b.npz", b"PK\3\4 truncated", r"b\.npz is a damaged zip archive"),
        ("b.pth", b"\x80\2K\1.", r"b\.pth cannot be read as a torch checkpoint: it begins with 1"),
        ("c.npz", _zipped({"a.npy": b"", "b.txt": b""}), r"c\.npz is a zip archive of a\.npy, b\.txt; the forms"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            weights.read_arrays(tmp_path / name)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_npz_files_are_refused_or_read_right(tmp_path, save):
    """A wrong length in the table of members makes zipfile skip the members behind it, without an error."""
    arrays = {"a.weight": np.random.default_rng(0).normal(size=(8, 5)), "b.bias": np.arange(7.0), "c": np.ones((3, 3))}
    path = tmp_path / "x.npz"
    save(path, **arrays)
    data = path.read_bytes()
    table = data.index(b"PK\1\2")
    lengths = [table + place for place in (28, 29, 30, 31, 32, 33)]  # of name, extra field and comment
    refused = 0
    for number, place in enumerate([*lengths, *random.Random(0).sample(range(len(data)), 100)]):
        for bit in range(8) if number < len(lengths) else (number % 8,):
            content = bytearray(data)
            content[place] ^= 1 << bit
            path.write_bytes(content)
            message = ""
            try:
                got = weights.read_arrays(path)
            except ValueError as error:
                message = str(error)
            if message:
                assert str(path) in message
                refused += 1
                continue
            assert got.keys() == arrays.keys()
            for name, value in arrays.items():
                np.testing.assert_array_equal(got[name], value)
    assert refused > 60
