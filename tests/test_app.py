"""The app: what it shows for a photo, and what it says without gradio."""

import importlib.util
import subprocess
import sys
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest

from mtl_jax import app, backbones, models, weights
from mtl_jax.train import initial_weights
from tests import tiny
from tests.processes import ROOT

PHOTO = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    """An untrained model of three tasks; its data set is not built."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbones.BACKBONES, "tiny", tiny.build_backbone)
        workdir = tmp_path_factory.mktemp("runs") / "a<b>"
        config = tiny.config(workdir.parent / "nothing")
        config.data.tasks, config.model.name = ("semseg", "edge", "depth"), "baseline"
        initial_weights.create_workdir(config, workdir, weights.to_torch(models.build(config)))
        yield app.Predictor(workdir, "best")


def test_the_title_names_model_and_tasks(predictor):
    assert "baseline (tiny) from " in predictor.title
    assert predictor.title.endswith("step 0: semseg, edge, depth")


def test_the_panel_follows_the_style(predictor):
    overlay, colors = (predictor.panel(PHOTO, style) for style in ("overlay", "map"))
    assert overlay.dtype == np.uint8
    assert overlay.shape[-1] == 3
    assert overlay.shape != colors.shape or (overlay != colors).any()


# gradio leaves sockets and event loops open, which are errors in tests: it runs in a process of its own.
PROGRAM = """
from types import SimpleNamespace
from mtl_jax import app

built = app.build(SimpleNamespace(title="a<b>", panel=lambda photo, style: (photo, style)))
(function,) = built.fns.values()
assert len(function.targets) == 2  # the photo and the style
assert function.fn("photo", "map") == ("photo", "map")
assert function.fn(None, "map") is None
texts = [block.value for block in built.blocks.values() if type(block).__name__ == "Markdown"]
assert r"a\\<b\\>" in texts, texts
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="gradio is not installed")
def test_the_app_predicts_when_a_photo_or_a_style_is_chosen():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_without_gradio_the_error_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ValueError, match=r'the app needs gradio.*pip install "mtl-jax\[app\]"'):
        app.launch(tmp_path, "best", host="127.0.0.1", port=7860)


def test_uploads_are_bounded_and_deleted(monkeypatch):
    """By gradio, which keeps them on the disk: it looks every hour for files older than an hour."""
    gradio = MagicMock()
    monkeypatch.setitem(sys.modules, "gradio", gradio)
    monkeypatch.setattr(app, "Predictor", lambda *place: SimpleNamespace(title=" ".join(place)))
    app.launch("run", "best", host="127.0.0.1", port=7860)
    assert gradio.Blocks.call_args.kwargs["delete_cache"] == (3600, 3600)
    (served,) = gradio.Blocks.return_value.__enter__.return_value.launch.call_args_list
    assert served.kwargs["max_file_size"] == "50mb"
