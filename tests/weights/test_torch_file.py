import io
import os
import pickle
import re
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import pytest

from mtl_jax.weights import torch_file
from mtl_jax.weights.inert_pickle import Unknown

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
DTYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")


def _save(torch, content, path, zipped):
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def _load(path):
    """The content of a file with an array for every tensor."""
    with torch_file.opened(path) as checkpoint:

        def filled(tree):
            if isinstance(tree, torch_file.Tensor):
                return checkpoint.arrays({"x": tree})["x"]
            if isinstance(tree, dict):
                return {key: filled(value) for key, value in tree.items()}
            return type(tree)(map(filled, tree)) if isinstance(tree, list | tuple) else tree

        return filled(checkpoint.tree)


def _pack(data, path, zipped):
    """A file around a pickle, as torch.save makes it."""
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", data)
    else:
        head = [pickle.dumps(x, 2) for x in (torch_file._MAGIC, 1001, {"little_endian": True})]
        path.write_bytes(b"".join([*head, data, pickle.dumps([], 2)]))
    return path


@FORMATS
def test_every_dtype(tmp_path, torch, zipped):
    wanted = {name: np.arange(12).reshape(3, 4).astype(name) for name in DTYPES}
    tensors = {name: torch.from_numpy(value) for name, value in wanted.items()}
    loaded = _load(_save(torch, tensors, tmp_path / "x.pth", zipped))
    assert loaded.keys() == wanted.keys()
    for name, value in wanted.items():
        assert loaded[name].dtype == value.dtype
        np.testing.assert_array_equal(loaded[name], value)


@FORMATS
def test_bfloat16_becomes_float32(tmp_path, torch, zipped):
    tensors = {"a": torch.tensor([1.5, -3.25, 1e30]).bfloat16(), "scalar": torch.tensor(2.5).bfloat16()}
    loaded = _load(_save(torch, tensors, tmp_path / "x.pth", zipped))
    for name, tensor in tensors.items():
        assert loaded[name].dtype == np.float32
        np.testing.assert_array_equal(loaded[name], tensor.float().numpy())


@FORMATS
def test_views_of_one_storage(tmp_path, torch, zipped):
    base = torch.arange(24.0).reshape(2, 3, 4)
    tensors = {
        "base": base,
        "transposed": base.transpose(0, 2),
        "slice": base[1:, :, ::2],
        "expanded": base[0, 0, :1].expand(5),
        "scalar": base[1, 2, 3],
        "empty": torch.zeros(0, 3),
        "channels_last": torch.arange(24.0).reshape(1, 2, 3, 4).contiguous(memory_format=torch.channels_last),
    }
    loaded = _load(_save(torch, tensors, tmp_path / "x.pth", zipped))
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(loaded[name], tensor.numpy(), err_msg=name)
        assert loaded[name].flags.c_contiguous
        assert loaded[name].flags.writeable


@FORMATS
def test_a_training_checkpoint(tmp_path, torch, zipped):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(2, 3, 5, 5)).sum().backward()
    optimizer.step()
    content = {
        "epoch": 3,
        "name": "ein Modell für überall",
        "best": (0.5, None, True),
        "model": model.state_dict(),  # an OrderedDict with an attribute
        "parameters": list(model.parameters()),
        "optimizer": optimizer.state_dict(),
    }
    loaded = _load(_save(torch, content, tmp_path / "x.pth.tar", zipped))
    assert (loaded["epoch"], loaded["name"], loaded["best"]) == (3, content["name"], (0.5, None, True))
    assert loaded["model"].keys() == content["model"].keys()
    np.testing.assert_array_equal(loaded["model"]["0.weight"], model[0].weight.detach().numpy())
    np.testing.assert_array_equal(loaded["parameters"][0], model[0].weight.detach().numpy())
    moments = optimizer.state_dict()["state"][0]["exp_avg"]
    (state,) = [state for key, state in loaded["optimizer"]["state"].items() if key.name == "0"]
    np.testing.assert_array_equal(state["exp_avg"], moments.numpy())


@FORMATS
def test_files_cut_short_are_refused(tmp_path, torch, zipped):
    data = _save(torch, {"a": torch.arange(200.0), "b": torch.ones(3)}, tmp_path / "x.pth", zipped).read_bytes()
    for length in (0, 3, 20, 100, len(data) // 2, len(data) - 1):
        (tmp_path / "cut.pth").write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"cut\.pth cannot be read as a torch checkpoint"):
            _load(tmp_path / "cut.pth")


@pytest.mark.parametrize(
    "content", [b"<html>not found</html>", pickle.dumps({"a": 1}), pickle.dumps(3), b"PK\3\4 and no archive"]
)
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.pth cannot be read as a torch checkpoint"):
        _load(tmp_path / "x.pth")


def test_other_archives_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("model/weights.bin", b"")
    with pytest.raises(ValueError, match=r"holds no data\.pkl instead of one; it holds model/weights\.bin"):
        _load(tmp_path / "x.pth")


class _Runs:
    """Unpickling it calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@FORMATS
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_runs_code_runs_nothing(tmp_path, zipped, protocol):
    trace = tmp_path / "trace"
    for function in (os.mkdir, eval):
        argument = str(trace) if function is os.mkdir else f"__import__('os').mkdir({str(trace)!r})"
        data = pickle.dumps({"weight": _Runs(function, argument)}, protocol)
        weight = _load(_pack(data, tmp_path / "x.pth", zipped))["weight"]
        assert isinstance(weight, Unknown)
        assert weight.name.endswith(f".{function.__name__}")
    assert not trace.exists()


def test_other_classes_are_named(tmp_path):
    for thing, name in [(Counter("a"), "collections.Counter"), (np.float64(0.5), r"numpy\S*scalar")]:
        data = pickle.dumps(OrderedDict(best=thing), 2)
        best = _load(_pack(data, tmp_path / "x.pth", zipped=True))["best"]
        assert isinstance(best, Unknown)
        assert re.fullmatch(name, best.name)


def _described(path, *, offset=0, shape=(2,), strides=(1,), size=4, pid=None, state=None):
    """A file with one tensor as described, and a storage of four numbers."""

    class Pickler(pickle._Pickler):  # in Python, which lets a name stand in for torch's functions
        def persistent_id(self, thing):
            return thing.pid if isinstance(thing, _Block) else None

        def save(self, thing, *args, **kwargs):
            if isinstance(thing, _Name):
                self.write(b"c" + thing.module.encode() + b"\n" + thing.name.encode() + b"\n")
            else:
                super().save(thing, *args, **kwargs)

    default = ("storage", _Name("torch", "FloatStorage"), "0", "cpu", size)
    block = _Block(pid or default)
    buffer = io.BytesIO()
    pickler = Pickler(buffer, 2)
    pickler.write(b"\x80\x02")
    pickler.save(_Name("torch._utils", "_rebuild_tensor_v2"))
    pickler.save((block, offset, shape, strides, False, None))
    pickler.write(b"R")
    if state is not None:
        pickler.save(state)
        pickler.write(b"b")
    pickler.write(b".")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", buffer.getvalue())
        archive.writestr("archive/data/0", np.arange(4, dtype="<f4").tobytes())
    return path


class _Name:
    def __init__(self, module, name):
        self.module, self.name = module, name


class _Block:
    def __init__(self, pid):
        self.pid = pid


def test_a_described_tensor(tmp_path):
    """The file that the next test spoils."""
    np.testing.assert_array_equal(_load(_described(tmp_path / "x.pth", offset=1, strides=(2,))), [1, 3])


@pytest.mark.parametrize("state", [{"shape": (1,)}, (None, {"shape": (1,)}), (None, {"offset": 1})])
def test_a_state_changes_no_tensor(tmp_path, state):
    np.testing.assert_array_equal(_load(_described(tmp_path / "x.pth", state=state)), [0, 1])


@pytest.mark.parametrize(
    ("pid", "name"),
    [
        (("storage", _Name("torch", "QUInt4x2Storage"), "0", "cpu", 2), "tensor of torch.QUInt4x2Storage"),
        (("module", _Name("models", "Net"), "net.py", "source"), "tensor of models.Net"),
    ],
)
def test_tensors_of_other_kinds_are_placeholders(tmp_path, pid, name):
    assert _load(_described(tmp_path / "x.pth", pid=pid)).name == name


@FORMATS
def test_tensors_with_attributes(tmp_path, torch, zipped):
    parameter, tensor = torch.nn.Parameter(torch.ones(2)), torch.arange(3.0)
    parameter.decay, tensor.origin = False, "somewhere"
    content = {"parameter": parameter, "tensor": tensor, "complex": torch.tensor([1 + 2j])}
    loaded = _load(_save(torch, content, tmp_path / "x.pth", zipped))
    for name, value in content.items():
        np.testing.assert_array_equal(loaded[name], value.detach().numpy())


def test_only_chosen_tensors_are_read(tmp_path, torch):
    path = _save(torch, {"a": torch.arange(3.0), "b": torch.ones(5)}, tmp_path / "x.pth", zipped=True)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist() if not name.endswith("data/1")}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with torch_file.opened(path) as checkpoint:
        np.testing.assert_array_equal(checkpoint.arrays({"x": checkpoint.tree["a"]})["x"], [0, 1, 2])
        with pytest.raises(ValueError, match=r"x\.pth cannot be read .*data/1"):
            checkpoint.arrays(checkpoint.tree)


def test_a_storage_is_described_once(tmp_path, torch):
    data = _save(torch, {"a": torch.ones(4), "b": torch.ones(4)}, tmp_path / "x.pth", zipped=False).read_bytes()
    keys = sorted({match.group(1) for match in re.finditer(rb"X.\0\0\0(\d{5,})", data)})
    (tmp_path / "x.pth").write_bytes(data.replace(keys[0], keys[1]).replace(b"K\4Nt", b"K\3Nt", 1))
    with pytest.raises(ValueError, match="in two ways"):
        _load(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"shape": (5,)}, r"reaches beyond its storage of 4 elements"),
        ({"offset": 3}, r"reaches beyond its storage"),
        ({"strides": (4,)}, r"reaches beyond its storage"),
        ({"strides": (-1,), "offset": 1}, r"it describes a tensor as"),
        ({"offset": -1}, r"it describes a tensor as"),
        ({"strides": (1, 1)}, r"it describes a tensor as"),
        ({"size": 8}, r"storage '0' has 16 bytes instead of 32"),
        ({"strides": (1,) * 65, "shape": (1,) * 65}, r"it describes a tensor as"),
        ({"shape": (2**64,)}, r"it describes a tensor as"),
        ({"strides": (0,), "shape": (3 << 28,)}, r"asks for 3221225472 bytes, and a file of \d+ bytes"),
        ({"strides": (0, 0), "shape": (2**59, 2**59)}, r"asks for 1329227995784915872903807060280344576 bytes"),
        ({"size": -1}, r"it describes a storage as \('storage', 'float32', '0', 'cpu', -1\)"),
        ({"pid": ("file", "source")}, r"it describes a storage as \('file', 'source'\)"),
        ({"pid": ("storage", "object", "0", "cpu", 2)}, r"it describes a storage as"),
        ({"pid": ("storage", _Name("torch", "FloatStorage"), "7", "cpu", 4)}, r"archive/data/7"),
    ],
)
def test_impossible_descriptions_are_refused(tmp_path, fault, message):
    with pytest.raises(ValueError, match=message):
        _load(_described(tmp_path / "x.pth", **fault))
