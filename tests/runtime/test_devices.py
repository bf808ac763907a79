"""Devices that are missing: one line of advice, from every command."""

import os
import subprocess
import sys

import jax
import pytest

from mtl_jax.runtime import devices
from tests.processes import ROOT

CARD = "NVIDIA GeForce RTX 4090"
COMMAND = """
import types, jax
from mtl_jax import cli
command = types.SimpleNamespace(__doc__="", add_arguments=lambda parser: None, run=lambda arguments: jax.devices())
cli.run(command, "mtl devices")
"""


@pytest.mark.parametrize(("platforms", "what"), [("cuda", "no NVIDIA card is visible"), ("rocm", "no such devices")])
def test_a_missing_device_is_one_line_of_advice(platforms, what):
    environment = os.environ | {"JAX_PLATFORMS": platforms, "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run([sys.executable, "-c", COMMAND], env=environment, capture_output=True, text=True, cwd=ROOT)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: JAX_PLATFORMS is '{platforms}', ")
    assert what in line
    assert line.endswith("set JAX_PLATFORMS=cpu to compute on the CPU, or unset it to take what there is")
    assert done.returncode == 1


def test_the_advice_names_the_extra_to_install(monkeypatch):
    monkeypatch.setattr(devices, "_has_cuda", lambda: False)
    monkeypatch.setattr(devices, "nvidia_card", lambda: CARD)
    assert 'this JAX is without CUDA (install it: pip install "mtl-jax[cuda]", or' in devices._advice("cuda,cpu")
    monkeypatch.setattr(devices, "_has_cuda", lambda: True)
    assert "the card does not start" in devices._advice("gpu")


def test_other_errors_stay_as_they_are():
    with pytest.raises(RuntimeError, match="another"), devices.explain_missing():
        raise RuntimeError("another")


@pytest.mark.parametrize(
    ("asked", "card", "plugin", "expected"),
    [
        (None, None, False, None),
        ("cpu", CARD, False, None),  # what the user wants
        (None, CARD, False, f'has an NVIDIA card ({CARD}), but JAX computes on the CPU: pip install "mtl-jax[cuda]"'),
        (None, CARD, True, "JAX_PLATFORMS=cuda in front of the command shows why"),
    ],
)
def test_advice_on_the_cpu(monkeypatch, asked, card, plugin, expected):
    monkeypatch.setattr(devices, "_asked", lambda: asked or "")
    monkeypatch.setattr(devices, "nvidia_card", lambda: card)
    monkeypatch.setattr(devices, "_has_cuda", lambda: plugin)
    advice = devices.advice_on_cpu()
    assert advice is None if expected is None else expected in advice


def test_the_name_of_a_card_is_that_of_the_driver(monkeypatch, tmp_path):
    for name in devices._HIDING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(devices.shutil, "which", lambda name: None)
    monkeypatch.setattr(devices, "_DRIVER", tmp_path)
    assert devices.nvidia_card() is None
    information = tmp_path / "0000:01:00.0" / "information"
    information.parent.mkdir()
    information.write_text(f"Model: \t\t {CARD}\nIRQ:   \t\t 150\n")
    assert devices.nvidia_card() == CARD
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert devices.nvidia_card() is None


def test_nvidia_smi_is_asked_first(monkeypatch, tmp_path):
    for name in devices._HIDING:
        monkeypatch.delenv(name, raising=False)
    command = tmp_path / "nvidia-smi"
    command.write_text(f"#!/bin/sh\necho '{CARD}'\necho '{CARD}'\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert devices.nvidia_card() == CARD
    command.write_text("#!/bin/sh\nexit 9\n")  # as without a driver that works
    assert devices.nvidia_card() is None


def test_the_description_names_the_cpu(monkeypatch):
    monkeypatch.setattr(devices.workers, "cpu_count", lambda: 8)
    shared = f", {jax.device_count()} devices" if jax.device_count() > 1 else ""
    assert devices.describe() == f"CPU with 8 cores{shared}"
