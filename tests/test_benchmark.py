"""The script that measures: on a few small images, without looking at the times."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mtl_jax import backbones, summary
from mtl_jax.benchmark import device, timing, train
from tests import tiny

SCRIPT = Path(__file__).parents[1] / "scripts" / "benchmark.py"
TINY = ("--images=4", "--batch_size=2", "--batches=1", "--repeats=1", "--scale=0.2")
WITHOUT_TORCH = """
import importlib.util, runpy, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *args: None if name == "torch" else find(name, *args)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(*args, prefix=()):
    command = [sys.executable, *prefix, str(SCRIPT), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=SCRIPT.parents[1])


def test_input_pascal(tmp_path):
    pytest.importorskip("torch")
    output = tmp_path / "numbers.json"
    result = run("input", *TINY, "--recipe=pascal", "--workers=0,1", f"--json={output}")
    assert result.returncode == 0, result.stderr
    assert "| recipe | loader | workers | images/s" in result.stdout
    assert "pascal, largest deviation: image " in result.stdout
    numbers = json.loads(output.read_text())
    assert [(row["loader"], row["workers"]) for row in numbers["rows"]] == [
        (kind, workers)
        for workers in (0, 1)
        for kind in ("mtl_jax", "DataLoader, original files", "DataLoader, labels as .npy")
    ]
    assert set(numbers["deviations"]["pascal"]) == {"image", "semseg", "human_parts", "sal", "normals", "edge"}
    assert all(row["rate"] > 0 for row in numbers["rows"])


def test_input_without_torch(tmp_path):
    """Our half is measured, from files kept for the next time."""
    args = ("input", *TINY, "--recipe=nyud_survey", "--workers=0", f"--data_dir={tmp_path}")
    for _ in range(2):
        result = run(*args, prefix=("-c", WITHOUT_TORCH))
        assert result.returncode == 0, result.stderr
        assert "torch is not installed: only mtl_jax is measured" in result.stdout
        assert "| nyud_survey | mtl_jax | 0 |" in result.stdout
        assert "DataLoader" not in result.stdout
    assert "Generating" not in result.stderr


def test_turns():
    calls = []

    def program(name):
        return lambda: calls.append(name) or len(calls)

    timed = timing.alternate({name: program(name) for name in "ab"}, repeats=2, warm_up=1)
    assert "".join(calls) == "ab" + "ab" + "abab"
    assert [timed[name].result for name in "ab"] == [1, 2]
    assert all(len(found.seconds) == 2 and found.median >= 0 for found in timed.values())
    with pytest.raises(ValueError, match="got 0 repeats"):
        timing.alternate({"a": program("a")}, repeats=0, warm_up=0)


def test_training_steps(data_dir, monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "tiny", tiny.build_backbone)
    config = tiny.config(data_dir)
    config.data.dataset, config.data.tasks = "pascal", ("semseg", "sal", "normals", "edge")
    config.model.name = "baseline"
    batch = train.random_batch(config)
    size = (config.train.batch_size, *config.data.image_size)
    assert {name: value.shape for name, value in batch.items()} == {
        "image": (*size, 3),
        "semseg": (*size, 1),
        "sal": (*size, 1),
        "normals": (*size, 3),
        "edge": (*size, 1),
    }
    step = train.TrainStep(config, batch)
    timed = timing.alternate({"mtl_jax": step, "other": lambda: 1.0}, repeats=3, warm_up=0)
    assert step() < timed["mtl_jax"].result  # it learns the batch
    assert step.flops == 6 * config.train.batch_size * summary.summarize(config).multiply_adds
    assert "| mtl_jax |" in train.table(timed, config.train.batch_size)
    peak, bandwidth = device.matmul_flops("float32", size=64), device.bandwidth(megabytes=1)
    assert peak > 0
    assert "GFLOP/s of the model" in train.describe(step, timed["mtl_jax"], peak, bandwidth)


@pytest.mark.slow
def test_train_against_torch(tmp_path):
    pytest.importorskip("torch")
    output = tmp_path / "numbers.json"
    options = ("--config.data.image_size=(64, 64)", "--config.train.batch_size=2", "--repeats=1", "--warm_up=0")
    config = "--config=configs/nyud_single.py:task=depth,backbone=resnet50_dilated"
    result = run("train", config, *options, "--against=eager,channels_last", f"--json={output}")
    assert result.returncode == 0, result.stderr
    numbers = json.loads(output.read_text())
    assert list(numbers["rows"]) == ["mtl_jax", "torch eager", "torch channels_last"]
    assert max(numbers["deviations"].values()) < 1e-4


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("training",), "error: unknown benchmark 'training'; there are: input, train"),
        (("train",), "error: train needs --config FILE.py"),
        (
            ("train", "--config=configs/demo.py", "--against=eager,jit"),
            "error: --against has jit; the ways to run PyTor",
        ),
        (("input", "--workers=two"), "error: --workers is two, expected numbers from 0, separated by commas"),
        ((), "missing arguments: what"),
    ],
)
def test_errors(args, message):
    result = run(*args)
    assert result.returncode == 1
    assert message in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
