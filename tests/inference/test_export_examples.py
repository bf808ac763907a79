"""The examples that read exported models, run as they are and without this package."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtl_jax import experiment
from mtl_jax.inference import export
from tests import exported_runs, tiny

EXAMPLES = Path(__file__).parents[2] / "examples"
LINE = 30  # height in pixels of the titles above the panels, and of the legends below


@pytest.fixture
def photo(tmp_path):
    """A photo of the network's size, so that nothing is resized."""
    path = tmp_path / "photo.png"
    Image.fromarray(exported_runs.images(1)[0]).save(path)
    return path


@pytest.mark.parametrize("format", ["jax", "onnx"])
def test_the_example_draws_what_evaluation_predicts(monkeypatch, tmp_path, photo, format):
    if format == "onnx":
        for name in ("onnx", "onnxruntime"):
            pytest.importorskip(name, reason=f"export to ONNX and running the model need {name}")
    tiny.register_backbones(monkeypatch)
    workdir = exported_runs.create(tmp_path)
    model, out = tmp_path / f"model{export.FORMATS[format].suffix}", tmp_path / "sheet.png"
    description = export.export_run(experiment.load_config(workdir), workdir, "latest", model, format=format)
    wanted = exported_runs.expected(workdir, exported_runs.images(1))
    with monkeypatch.context() as patch:
        unwanted = ("mtl_jax", "flax", "optax", "orbax", "cv2", *(("jax",) if format == "onnx" else ()))
        for name in unwanted:  # importing these raises
            patch.setitem(sys.modules, name, None)
        patch.setattr(sys, "argv", ["example", str(model), str(photo), str(out)])
        runpy.run_path(str(EXAMPLES / f"predict_exported_{format}.py"), run_name="__main__")
    sheet = np.asarray(Image.open(out))
    assert sheet.shape == (64 + 2 * LINE, 64 * (1 + len(wanted)), 3)
    panels = dict(zip(("photo", *wanted), np.split(sheet[LINE:-LINE], 1 + len(wanted), axis=1), strict=True))
    np.testing.assert_array_equal(panels["photo"], exported_runs.images(1)[0])
    colors = np.array(description["outputs"]["semseg"]["class_colors"])
    assert (panels["semseg"] == colors[wanted["semseg"][0]]).mean() > 0.999  # two classes may be equally likely
    np.testing.assert_allclose(panels["normals"], wanted["normals"][0], atol=1.01)  # truncated
    np.testing.assert_allclose(panels["edge"][..., :1], wanted["edge"][0], atol=1.01)
    depth = wanted["depth"][0]
    np.testing.assert_allclose(
        panels["depth"][..., :1], 255 * (depth - depth.min()) / (depth.max() - depth.min()), atol=1.01
    )
