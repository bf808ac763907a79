"""The script that builds data sets."""

import subprocess
import sys
from pathlib import Path

import pytest

from mtl_jax.data import datasets
from tests import nyud_release, scripts
from tests.data import test_folder

ROOT = Path(__file__).parents[1]


def run(*args):
    command = [sys.executable, str(ROOT / "scripts" / "build_data.py"), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)


@pytest.mark.slow
def test_several_data_sets(tmp_path):
    nyud_release.write(tmp_path / "raw", "survey", {"train": [f"{i:04}" for i in range(20)], "val": ["0100"]})
    own = test_folder.write(tmp_path / "own")
    (own / "depth" / "a.png").unlink()
    names = ("nyud_mt/survey_subset", own, "rendered_scenes/nyud_tiny")
    flags = [f"--dataset={name}" for name in names]
    result = run(*flags, f"--manual_dir={tmp_path / 'raw'}", f"--data_dir={tmp_path / 'tfds'}", "--num_workers=2")
    assert result.returncode == 0, result.stderr
    assert "train: 20 images; semseg 20, normals 20, edge 20, depth 20" in result.stdout
    assert "folder_mt/own 1.0.0" in result.stdout
    assert "train: 3 images; semseg 3, sal 3, normals 3, edge 3, depth 2" in result.stdout
    assert "reading files: 100%" in result.stderr
    for name in ("nyud_mt/survey_subset", "folder_mt/own", "rendered_scenes/nyud_tiny"):
        assert len(datasets.open_split(datasets.prepare(name, tmp_path / "tfds"), "val")) > 0


def test_errors(tmp_path):
    result = scripts.run("build_data", "--dataset=nowhere", f"--data_dir={tmp_path}")
    assert result.returncode == 1
    assert "--dataset 'nowhere' is neither a builder (nyud_mt, pascal_mt, folder_mt," in result.stderr
    assert "Traceback" not in result.stderr

    raw = nyud_release.write(tmp_path / "raw", "survey")
    (raw / "depth" / "0001.npy").unlink()
    result = scripts.run(
        "build_data", "--dataset=nyud_mt/survey_subset", f"--manual_dir={raw}", f"--data_dir={tmp_path}"
    )
    assert result.returncode == 1
    assert "depth/0001.npy is missing" in result.stderr
    assert "Traceback" not in result.stderr
