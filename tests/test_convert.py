"""scripts/convert.py, in process and with a tiny model; once as a program."""

import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from mtl_jax import backbones, experiment, models, weights
from mtl_jax.commands import convert as command
from mtl_jax.train import initial_weights
from mtl_jax.train.checkpoint import Checkpoints
from tests import tiny

ROOT = Path(__file__).parents[1]


def convert(source, target, *, config=None, step=None, entry="", prefix="", weights=""):
    """`mtl convert` with a configuration that has no recipe."""
    options = {"step": step, "entry": entry, "prefix": prefix, "weights": weights}
    command.run(Namespace(source=source, target=target, config=config, **options))


@pytest.fixture(autouse=True)
def _tiny_backbone(monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "tiny", tiny.build_backbone)


@pytest.fixture
def run(tmp_path):
    """(configuration, work directory, the weights in it)"""
    config = tiny.config(tmp_path)
    arrays = weights.to_torch(models.build(config))
    initial_weights.create_workdir(config, tmp_path / "run", arrays)
    return config, tmp_path / "run", arrays


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_a_workdir_to_every_file_and_back(run, tmp_path):
    config, workdir, arrays = run
    source = workdir
    for suffix in (".npz", ".safetensors"):
        target = tmp_path / "new" / f"x{suffix}"
        convert(source, target)
        assert_same(weights.read_arrays(target), arrays)
        source = target
    convert(source, tmp_path / "back.v2", config=config)
    assert Checkpoints(tmp_path / "back.v2", read_only=True).steps() == [0]
    assert experiment.load_config(tmp_path / "back.v2") == experiment.load_config(workdir)
    convert(tmp_path / "back.v2", tmp_path / "again.npz")
    assert_same(weights.read_arrays(tmp_path / "again.npz"), arrays)


def test_torch_files(run, tmp_path):
    torch = pytest.importorskip("torch", reason="writing torch files needs torch", exc_type=ModuleNotFoundError)
    _, workdir, arrays = run
    convert(workdir, tmp_path / "x.pth")
    loaded = torch.load(tmp_path / "x.pth", weights_only=True)
    assert_same({name: value.numpy() for name, value in loaded.items()}, arrays)
    convert(tmp_path / "x.pth", tmp_path / "x.npz")
    assert_same(weights.read_arrays(tmp_path / "x.npz"), arrays)


def test_a_published_backbone_stays_as_it_is(tmp_path):
    torch = pytest.importorskip("torch", reason="writing torch files needs torch", exc_type=ModuleNotFoundError)
    state = {"module.conv1.weight": torch.ones(2, 3), "module.bn1.num_batches_tracked": torch.tensor(7)}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "x.pth.tar")
    convert(tmp_path / "x.pth.tar", tmp_path / "x.safetensors")
    wanted = {"conv1.weight": np.ones((2, 3)), "bn1.num_batches_tracked": np.array(7)}
    assert_same(weights.read_arrays(tmp_path / "x.safetensors"), wanted)


def test_entries_and_prefixes(run, tmp_path):
    torch = pytest.importorskip("torch", reason="writing torch files needs torch", exc_type=ModuleNotFoundError)
    state = {"encoder_q.a": torch.ones(2), "encoder_k.a": torch.zeros(2)}
    torch.save({"model": {"b": torch.ones(3)}, "ema": state}, tmp_path / "x.ckpt")
    convert(tmp_path / "x.ckpt", tmp_path / "plain.npz")
    assert_same(weights.read_arrays(tmp_path / "plain.npz"), {"b": np.ones(3)})
    convert(tmp_path / "x.ckpt", tmp_path / "chosen.npz", entry="ema", prefix="encoder_k.")
    assert_same(weights.read_arrays(tmp_path / "chosen.npz"), {"a": np.zeros(2)})
    with pytest.raises(ValueError, match=r"SOURCE .*run is a work directory"):
        convert(run[1], tmp_path / "y.npz", entry="ema")


def test_a_training_checkpoint_of_a_whole_model(run, tmp_path):
    torch = pytest.importorskip("torch", reason="writing torch files needs torch", exc_type=ModuleNotFoundError)
    config, _, arrays = run
    state = {f"module._orig_mod.model.{name}": torch.from_numpy(np.array(value)) for name, value in arrays.items()}
    content = {"optimizer": {"state": {}}, "model": state, "epoch": 3, "best_result": {"depth": np.float64(0.5)}}
    torch.save(content, tmp_path / "x.pth.tar")
    convert(tmp_path / "x.pth.tar", tmp_path / "imported", config=config)
    convert(tmp_path / "imported", tmp_path / "again.npz")
    assert_same(weights.read_arrays(tmp_path / "again.npz"), arrays)


def test_without_torch(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError, match=r"x\.pth needs torch: pip install .*\.safetensors"):
        convert(run[1], tmp_path / "x.pth")
    assert not (tmp_path / "x.pth").exists()


def test_what_is_there_is_kept(run, tmp_path):
    with pytest.raises(FileExistsError, match="run exists already"):
        convert(run[1], run[1])
    (tmp_path / "x.npz").write_bytes(b"")
    with pytest.raises(FileExistsError, match=r"x\.npz exists already"):
        convert(run[1], tmp_path / "x.npz")


def test_flags_that_do_not_apply(run, tmp_path):
    config, workdir, arrays = run
    weights.write_arrays(tmp_path / "x.npz", arrays)
    with pytest.raises(ValueError, match=r"TARGET .*new ends in none of .*--config RECIPE"):
        convert(workdir, tmp_path / "new")
    with pytest.raises(ValueError, match=r"SOURCE .*x\.npz is none"):
        convert(tmp_path / "x.npz", tmp_path / "y.npz", step="3")
    with pytest.raises(ValueError, match=r"--weights chooses .*x\.npz is none"):
        convert(tmp_path / "x.npz", tmp_path / "y.npz", weights="ema")
    with pytest.raises(ValueError, match="has no averaged weights"):
        convert(workdir, tmp_path / "y.npz", weights="ema")
    with pytest.raises(FileNotFoundError, match="has no step 3; it has 0"):
        convert(workdir, tmp_path / "y.npz", step="3")
    with pytest.raises(ValueError, match=r"TARGET .*y\.npz is a file; leave --config out"):
        convert(workdir, tmp_path / "y.npz", config=config)
    config.data.tasks = ("normals",)
    with pytest.raises(ValueError, match="the weights do not fit SingleTask"):
        convert(tmp_path / "x.npz", tmp_path / "new", config=config)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "x.npz"]


@pytest.mark.slow
def test_the_command_line(tmp_path):
    weights.write_arrays(tmp_path / "x.npz", {"a": np.arange(3)})

    def call(*args):
        command = [sys.executable, "scripts/convert.py", *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)

    assert "y.safetensors: 1 arrays" in call(tmp_path / "x.npz", tmp_path / "y.safetensors").stdout
    np.testing.assert_array_equal(weights.read_arrays(tmp_path / "y.safetensors")["a"], np.arange(3))
    process = call(tmp_path / "x.npz")
    assert process.returncode != 0
    assert "the following arguments are required: TARGET" in process.stdout + process.stderr
