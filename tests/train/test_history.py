"""How the weights of a model came about."""

import json

import pytest
from flax import nnx

from mtl_jax import experiment, models
from mtl_jax.config import Model
from mtl_jax.train import history
from mtl_jax.train.history import History
from tests import tiny


def of_run(workdir, model, step):
    config = tiny.config(workdir, epochs=4)
    config.data.tasks, config.model = ("semseg", "depth"), model
    return history.of_run(experiment.make(config), nnx.eval_shape(lambda: models.build(config)), workdir, step)


@pytest.fixture(autouse=True)
def _tiny_backbones(monkeypatch):
    tiny.register_backbones(monkeypatch)


def test_what_the_training_began_with(tmp_path):
    """Single-task models fill cross-stitch networks, whatever `pretrained` says; conversions fill everything."""
    kinds = {
        "random": Model("baseline", "tiny"),
        "resnet.pth": Model("baseline", "tiny", pretrained="/home/me/resnet.pth"),
        "trained single-task models": Model("cross_stitch", "tiny", pretrained="resnet.pth"),
    }
    for said, model in kinds.items():
        assert of_run(tmp_path, model, 7).initial_weights == said
        assert of_run(tmp_path, model, 0).initial_weights == "converted weights"  # no run saves its step 0
    options = {"init_single_task": False}
    assert of_run(tmp_path, Model("nddr_cnn", "tiny", options=options), 7).initial_weights == "random"
    history.note_conversion(tmp_path)
    assert (
        of_run(tmp_path, Model("baseline", "tiny", pretrained="resnet.pth"), 7).initial_weights == "converted weights"
    )


def test_how_far_the_training_went(tmp_path):
    model = Model("baseline", "tiny")
    assert of_run(tmp_path, model, 5).progress == "step 5"
    lines = [{"step": step, "kind": "train", "epoch": step / 3} for step in (1, 2, 4)]
    (tmp_path / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert of_run(tmp_path, model, 5) == History("random", 5, 12)
    assert of_run(tmp_path, model, 5).progress == "step 5 of 12"


def test_a_history_is_stored(tmp_path, caplog):
    made = History("random", 5, None)
    history.write(made, tmp_path / "x.json")
    assert history.read(tmp_path / "x.json") == made
    assert history.read(tmp_path / "none.json") == history.UNKNOWN
    for content in ("{", "[]", '{"initial_weights": 3, "step": 1, "steps": 1}', "[" * 100_000):
        (tmp_path / "x.json").write_text(content)
        assert history.read(tmp_path / "x.json") == history.UNKNOWN
    assert len(caplog.messages) == 4
