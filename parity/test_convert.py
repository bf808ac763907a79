"""Weights on their way out and back: a work directory here, a state_dict in torch, a work directory again."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mtl_jax import experiment, weights
from mtl_jax.train import initial_weights, restore
from parity import flax_run, golden, interpreter, report
from parity.compare import FLOAT32

torch = pytest.importorskip("torch", reason="the twin needs torch", exc_type=ModuleNotFoundError)

from parity.reference import run  # noqa: E402

ROOT = Path(__file__).parents[1]
CONFIGS = {
    "single_resnet18_semseg21": "configs/pascal_single.py:task=semseg,backbone=resnet18_dilated",
    "mti_net_nyud_hrnet18": "configs/nyud_mtinet.py",
}


def _convert(*args):
    command = [sys.executable, "scripts/convert.py", *map(str, args)]
    process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert process.returncode == 0, process.stderr


def _stored(workdir):
    """What a work directory holds under torch's names."""
    state = restore.load(experiment.load_config(workdir), workdir, "latest").state
    return weights.to_torch(state.model())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["single_resnet18_semseg21", "mti_net_nyud_hrnet18"])
def test_a_model_goes_to_torch_and_comes_back(tmp_path, name):
    initial_weights.create_workdir(flax_run.config(name), tmp_path / "run", golden.state_dict(name))
    _convert(tmp_path / "run", tmp_path / "x.pth")
    stored = _stored(tmp_path / "run")

    twin = run.network(name).eval()
    twin.load_state_dict(torch.load(tmp_path / "x.pth", weights_only=True), strict=True)
    with torch.no_grad():
        wanted = run.arrays(twin(torch.from_numpy(golden.image())))
    got = flax_run.recorded_network(name, np.float32, interpreter.interpret).evaluate(stored, golden.image())
    assert got.keys() == wanted.keys()
    deviation = max(np.abs(got[key] - x).max() / np.sqrt(np.mean(x**2)) for key, x in wanted.items())
    assert report.record(f"exported {name}", "eval", deviation) < FLOAT32["eval"]

    _convert(tmp_path / "x.pth", tmp_path / "back", "--config", CONFIGS[name])
    back = _stored(tmp_path / "back")
    assert back.keys() == stored.keys()
    for key, x in stored.items():
        np.testing.assert_array_equal(x, golden.state_dict(name)[key], err_msg=key)
        np.testing.assert_array_equal(back[key], x, err_msg=key)
