import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_jax import experiment, models
from mtl_jax.config import Config, Data, Model, Optim, Train
from tests import tiny
from tests.marks import slow


@pytest.fixture(autouse=True)
def _tiny_backbones(monkeypatch):
    tiny.register_backbones(monkeypatch)


def losses(config, outputs):
    """Of ones everywhere where zeros were predicted."""
    labels = dict.fromkeys(("edge", "depth"), jnp.ones((1, 2, 2, 1)))
    return experiment.build_objective(config)(dict.fromkeys(outputs, jnp.zeros((1, 2, 2, 1))), labels)


def test_a_task_on_its_own_has_the_weight_1():
    total, parts = losses(Config(Data("nyud", ("edge",))), ["edge"])
    assert total == parts["edge"] > 0


def test_several_tasks_have_the_weights_of_the_table():
    total, parts = losses(Config(Data("nyud", ("depth", "edge"))), ["edge", "depth"])
    assert float(total) == pytest.approx(50 * parts["edge"] + 1 * parts["depth"])


def test_an_auxiliary_task_makes_several():
    total, parts = losses(Config(Data("nyud", ("edge",), ("edge", "depth"))), ["edge", "initial_edge", "initial_depth"])
    expected = 50 * (parts["edge"] + parts["deepsup_edge"]) + parts["deepsup_depth"]
    assert float(total) == pytest.approx(float(expected))


@pytest.mark.parametrize(("name", "fusion"), [slow("cross_stitch", "cross_stitch"), ("nddr_cnn", "nddr")])
def test_fusions_learn_at_their_own_rate(name, fusion):
    """One step of sgd against a gradient of ones: every parameter moves by lr, those of the fusion 100 times as far."""

    def displacement(multiplier):
        config = Config(
            Data("nyud", ("semseg", "depth")),
            Model(name, "tiny"),
            Optim("sgd", lr=1e-3, weight_decay=0.0, schedule="constant", fusion_lr_multiplier=multiplier),
            Train(epochs=1),
        )
        model = models.build(config)
        before = nnx.to_flat_state(jax.tree.map(jnp.copy, nnx.state(model, nnx.Param)))
        optimizer = nnx.Optimizer(model, experiment.build_optimizer(config, steps_per_epoch=1), wrt=nnx.Param)
        optimizer.update(model, jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param)))
        after = dict(nnx.to_flat_state(nnx.state(model, nnx.Param)))
        return {path: np.asarray(value[...] - after[path][...]) for path, value in before}

    one, hundred = displacement(1.0), displacement(100.0)
    assert {path[0] for path in one} == {"backbone", "heads", fusion}
    for path, moved in one.items():
        np.testing.assert_allclose(moved, 1e-3, atol=2e-7, err_msg=str(path))  # rounding of weights of size 1
        factor = 100 if path[0] == fusion else 1
        np.testing.assert_allclose(hundred[path], factor * 1e-3, atol=2e-7, err_msg=str(path))
