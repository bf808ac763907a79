"""The wheel by itself: commands, recipes and the README's Python lines in an empty folder, without the checkout."""

import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
# The demo's recipe with a model that compiles in seconds.
TRAIN = (
    "--model.name=baseline",
    "--model.backbone=resnet18",
    "--data.aux_tasks=",
    "--data.builder=rendered_scenes/nyud_tiny",
    "--data.data_dir=data",
    "--data.image_size=32x32",
    "--data.num_workers=0",
    "--train.batch_size=4",
    "--train.epochs=1",
)
COMMANDS = (
    ("train", "demo", "--workdir=runs/demo", *TRAIN),
    ("evaluate", "--workdir=runs/demo"),
    ("predict", "--workdir=runs/demo", "--images=photo.png", "--out=maps"),
    ("export", "--workdir=runs/demo", "--out=model.zip"),
    ("report", "runs", "--html=report.html"),
)


def run(site, folder, *command):
    environment = os.environ | {"PYTHONPATH": str(site), "MTL_JAX_CACHE": str(folder / "cache")}
    environment |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stderr[-5000:]
    return process.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the installed wheel alone; what it depends on comes from the environment of the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={folder}", ROOT], check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", f"--target={folder / 'site'}", wheel], check=True)
    return folder / "site"


def test_commands_and_recipes_and_the_readme_work_without_the_checkout(site, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    where = run(
        site, folder, sys.executable, "-c", "from mtl_jax import recipes; print(recipes.load.__code__.co_filename)"
    )
    assert Path(where.strip()) == site / "mtl_jax" / "recipes.py"
    listed = run(site, folder, site / "bin" / "mtl", "list", "recipes")
    assert [line.split()[0] for line in listed.splitlines()] == sorted(path.stem for path in ROOT.glob("configs/*.py"))

    photo = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    for name in ("photo.png", "photo.jpg"):
        cv2.imwrite(str(folder / name), photo)
    (lines,) = re.findall(
        r"## From Python\n\n```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S
    )
    program = f"from mtl_jax import commands\nfor command in {COMMANDS!r}:\n    commands.main(command)\n{lines}"
    (folder / "program.py").write_text(program)
    printed = run(site, folder, sys.executable, "program.py")
    assert "depth (60, 80)" in printed
    assert {path.name for path in folder.iterdir()} >= {"maps", "model.zip", "report.html", "predictions", "rooms"}
