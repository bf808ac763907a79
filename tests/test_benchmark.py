"""The script that measures: on a few small images, without looking at the times."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


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


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("training",), "error: unknown benchmark 'training'; there is: input"),
        (("input", "--workers=two"), "error: --workers is two, expected numbers from 0, separated by commas"),
        ((), "missing arguments: what"),
    ],
)
def test_errors(args, message):
    result = run(*args)
    assert result.returncode == 1
    assert message in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
