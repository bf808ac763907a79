"""Learning curves beside PyTorch."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import learn
from mtl_jax import backbones, experiment, models, weights
from mtl_jax.config import Model
from tests import scripts, tiny

CONTROL = "torch eager, weights rounded otherwise"


@pytest.fixture
def config(data_dir, monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "tiny", tiny.build_backbone)
    config = tiny.config(data_dir)
    config.data.tasks = ("semseg", "normals")
    config.model.name = "baseline"
    return config


@pytest.mark.slow
def test_the_same_network_has_the_same_curve(config):
    """Our own network stands in for PyTorch's: it learns the same, and one that is rounded otherwise nearly so."""
    rates = []

    class Twin(learn.OurLearner):
        def __init__(self, config, arrays, way):
            assert way == "eager"
            model = models.build(config)
            weights.load_torch(model, arrays)
            super().__init__(experiment.make(config), model, steps_per_epoch=3)

        def step(self, batch, rate):
            rates.append(rate)
            return super().step(batch, rate)

    learned = learn.learn(config, ["eager"], SimpleNamespace(Learner=Twin), steps=3, evaluate_every=2)
    ours, twin, control = learned.curves.values()
    assert list(learned.curves) == ["mtl_jax", "torch eager", CONTROL]
    assert ours == twin
    assert ours != control  # in the scores; so few losses may agree to the last digit
    np.testing.assert_allclose(ours.losses, control.losses, rtol=1e-4)
    assert ours.losses[2] < ours.losses[0]
    assert list(ours.scores) == [2, 3]
    assert set(ours.scores[3]) == {"semseg", "normals"}
    run = experiment.make(config)
    assert rates[::2] == rates[1::2] == [float(run.learning_rate(3)(step)) for step in range(3)]

    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in learned.table().splitlines()]
    assert rows[0] == ["steps", "network", "mean loss", "mean distance from torch eager", "semseg mIoU", "normals mean"]
    assert [row[:2] for row in rows[2:]] == [[steps, name] for steps in ("1 to 2", "3 to 3") for name in learned.curves]
    assert rows[2][3] == "0.0e+00"
    assert rows[3][3] == ""
    assert float(rows[-1][3]) < 1e-4
    assert json.loads(json.dumps(learned.numbers()))["curves"]["mtl_jax"]["losses"] == ours.losses


def test_rounded_otherwise():
    x = np.float32([1.0, -3.0, 0.0, 1e-3] * 100)
    changed = learn.rounded_otherwise({"x": x})["x"]
    assert changed.dtype == np.float32
    assert (changed != x).any()
    np.testing.assert_allclose(changed, x, rtol=2.4e-7)


def test_picture(tmp_path):
    pytest.importorskip("matplotlib")
    from benchmarks import learning_curves

    curves = {name: learn.Curve([2.0, 1.0 + i / 100], {2: {"semseg": 0.1}}) for i, name in enumerate("abc")}
    learning_curves.draw(learn.Learned(curves, {"semseg": "mIoU"}), tmp_path / "new" / "curves.png")
    assert (tmp_path / "new" / "curves.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_beside_torch(config):
    """A network of the library and its PyTorch twin stay together for some steps, and score alike."""
    pytest.importorskip("torch")
    from parity.reference import speed

    config.model = Model("baseline", "resnet18_dilated")
    config.optim.lr = 1e-5  # larger steps amplify rounding at once, since the maps are tiny
    learned = learn.learn(config, ["eager"], speed, steps=3, evaluate_every=3)
    ours, *others = learned.curves.values()
    assert len(others) == 2
    for other in others:
        np.testing.assert_allclose(ours.losses, other.losses, rtol=1e-4)
        for task, score in ours.scores[3].items():
            assert other.scores[3][task] == pytest.approx(score, rel=0.05)


def test_it_needs_pytorch():
    result = scripts.run("benchmark", "learn", "--config=configs/demo.py")
    assert result.returncode == 1
    assert "install the extra parity and give --against=eager" in result.stderr
