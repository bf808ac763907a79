"""scripts/export.py, in process and with a tiny model; its file is read by the README's lines, without this package."""

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import export as jax_export

from mtl_jax import experiment, models, weights
from mtl_jax.config import Config, Data, Model
from mtl_jax.inference import export
from mtl_jax.inference.restored import Restored
from mtl_jax.train import initial_weights
from tests import scripts, tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _tiny_backbones(monkeypatch):
    tiny.register_backbones(monkeypatch)


@pytest.fixture
def workdir(tmp_path):
    """A run with a prediction of every kind."""
    config = tiny.config(tmp_path)
    config.data.tasks = ("semseg", "normals", "edge", "depth")
    config.model = Model("baseline", "tiny_resnet")
    model = tiny.randomise_batch_norms(models.build(config))
    initial_weights.create_workdir(config, tmp_path / "run", weights.to_torch(model))
    return tmp_path / "run"


def images(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (number, 64, 64, 3), np.uint8)


def expected(workdir: Path, batch: np.ndarray) -> dict[str, np.ndarray]:
    """What evaluation predicts, unfolded."""
    run = Restored(experiment.load_config(workdir), workdir, "latest")
    number = len(batch)
    whole = {"image": batch, "index": np.arange(number, dtype=np.int32), "valid": np.ones(number, bool)}
    maps = [maps for _, maps in run.predict_batches([whole])]
    return {task: np.stack([one[task] for one in maps]) for task in run.tasks}


def assert_close(maps, wanted):
    assert maps.keys() == wanted.keys()
    for task, values in wanted.items():
        assert maps[task].dtype == values.dtype
        if task == "semseg":
            assert (maps[task] == values).mean() > 0.999  # two classes may be equally likely
        else:
            np.testing.assert_allclose(maps[task], values, rtol=1e-4, atol=1e-3)  # float32, of up to 255


@pytest.mark.slow
def test_the_readme_reads_it_without_this_package(workdir, tmp_path):
    result = scripts.run("export", "--workdir", workdir, "--step=latest", "--out", tmp_path / "nyud_mtinet.zip")
    assert "step 0, semseg, normals, edge, depth, for cpu and cuda" in result.stdout
    (snippet,) = (s for s in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S) if "zip" in s)
    (tmp_path / "snippet.py").write_text(snippet)
    code = (
        "import sys; sys.modules |= dict.fromkeys(['mtl_jax', 'flax', 'optax', 'orbax'])\n"  # importing these raises
        "exec(open('snippet.py').read())\n"
        "np.savez('black.npz', **maps)\n"
        "np.savez('maps.npz', **predict(np.load('images.npy')))\n"  # another number of images
    )
    np.save(tmp_path / "images.npy", images(3))
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
    )
    assert process.returncode == 0, process.stderr
    assert "depth (2, 64, 64, 1) value in m" in process.stdout
    assert_close(dict(np.load(tmp_path / "black.npz")), expected(workdir, np.zeros((2, 64, 64, 3), np.uint8)))
    assert_close(dict(np.load(tmp_path / "maps.npz")), expected(workdir, images(3)))


def test_one_batch_size_one_platform(workdir, tmp_path):
    out = tmp_path / "new" / "x.zip"
    config = experiment.load_config(workdir)
    description = export.export_run(config, workdir, "0", out, batch_size=2, platforms=["cpu"])
    with zipfile.ZipFile(out) as file:
        assert json.loads(file.read("description.json")) == description
        program = jax_export.deserialize(bytearray(file.read("program.jaxexport")))
    assert description["platforms"] == ["cpu"]
    assert description["input"]["shape"] == [2, 64, 64, 3]
    assert description["outputs"]["semseg"]["shape"] == [2, 64, 64]
    assert [array.dtype for array in program.in_avals] == [np.uint8]
    with pytest.raises(ValueError, match="shape"):
        jax.jit(program.call)(images(3))


def test_description(workdir, tmp_path):
    config = experiment.load_config(workdir)
    config.data.dataset = "folder"
    config.data.class_names = {"semseg": tuple(f"class {i}" for i in range(40))}
    found = export.export_run(config, workdir, "latest", tmp_path / "x.zip")
    assert found["input"] == {
        "shape": ["batch", 64, 64, 3],
        "dtype": "uint8",
        "meaning": "RGB images, resized to this height and width",
    }
    assert list(found["outputs"]) == ["semseg", "normals", "edge", "depth"]
    assert {task: (output["shape"], output["dtype"]) for task, output in found["outputs"].items()} == {
        "semseg": (["batch", 64, 64], "int32"),
        "normals": (["batch", 64, 64, 3], "float32"),
        "edge": (["batch", 64, 64, 1], "float32"),
        "depth": (["batch", 64, 64, 1], "float32"),
    }
    assert found["outputs"]["semseg"]["classes"] == 40
    assert found["outputs"]["semseg"]["class_names"][39] == "class 39"
    assert (found["model"], found["backbone"], found["dtype"], found["step"]) == (
        "baseline",
        "tiny_resnet",
        "float32",
        0,
    )


def test_errors_come_first(workdir, tmp_path, monkeypatch):
    config = experiment.load_config(workdir)
    out = tmp_path / "new" / "x.zip"
    with monkeypatch.context() as patch:
        patch.setattr(export.restore, "load", None)  # nothing is read before
        for platforms in (["gpu"], []):
            with pytest.raises(ValueError, match=r"cannot export for .*; there are cpu, cuda, rocm, tpu"):
                export.export_run(config, workdir, "latest", out, platforms=platforms)
        assert not out.parent.exists()
        with pytest.raises(FileExistsError, match=r"config\.json exists already"):
            export.export_run(config, workdir, "latest", workdir / "config.json")
    with pytest.raises(FileNotFoundError, match="has no step 3; it has 0"):
        export.export_run(config, workdir, "3", out)
    assert not out.exists()


CASES = [(*network, "float32") for network in tiny.NETWORKS]
CASES += [("baseline", "hrnet_w18", "bfloat16"), ("baseline", "resnet18_dilated", "bfloat16")]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backbone", "dtype"), CASES)
def test_every_model_exports_for_any_number_of_images(name, backbone, dtype):
    main = ("depth",) if name == "single_task" else ("semseg", "depth")
    config = Config(Data("nyud", main), Model(name, backbone, dtype=dtype))
    model = tiny.randomise_batch_norms(models.build(config))
    program = export.make_program(model, main, (64, 96), batch_size=0, platforms=export.PLATFORMS)
    run = experiment.make(config)
    described = export.describe(run, 0, program)["outputs"]
    assert described["depth"]["shape"] == ["batch", 64, 96, 1]
    assert described["depth"]["dtype"] == "float32"
    assert "inlineable" not in program.mlir_module()  # what only programs for CPUs keep apart
    again = jax_export.deserialize(program.serialize())
    assert export.describe(run, 0, again) == export.describe(run, 0, program)
