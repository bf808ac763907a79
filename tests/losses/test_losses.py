import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import tasks
from mtl_jax.losses import LOSSES, Objective, balanced_cross_entropy, depth_l1, normals_l1, softmax_cross_entropy


def test_cross_entropy_by_hand():
    logits = jnp.log(jnp.array([[[[0.5, 0.5], [0.25, 0.75], [0.9, 0.1]]]]))
    label = jnp.array([0, 1, 255]).reshape(1, 1, 3, 1)
    np.testing.assert_allclose(softmax_cross_entropy(logits, label), -(np.log(0.5) + np.log(0.75)) / 2, rtol=1e-6)


def test_balanced_cross_entropy_by_hand():
    logits = jnp.array([0.0, 0.0, 2.0, -1.0]).reshape(1, 2, 2, 1)
    label = jnp.array([1.0, 0.0, 0.0, 0.0]).reshape(1, 2, 2, 1)
    terms = [0.75 * np.log(2), 0.25 * np.log(2), 0.25 * np.log1p(np.exp(2)), 0.25 * np.log1p(np.exp(-1))]
    np.testing.assert_allclose(balanced_cross_entropy(logits, label), np.mean(terms), rtol=1e-6)
    fixed = [0.95 * np.log(2), 0.05 * np.log(2), 0.05 * np.log1p(np.exp(2)), 0.05 * np.log1p(np.exp(-1))]
    np.testing.assert_allclose(balanced_cross_entropy(logits, label, 0.95), np.mean(fixed), rtol=1e-6)


def test_depth_ignores_only_255():
    prediction = jnp.array([1.0, 2.0, 3.0]).reshape(1, 1, 3, 1)
    label = jnp.array([0.0, 4.0, 255.0]).reshape(1, 1, 3, 1)
    np.testing.assert_allclose(depth_l1(prediction, label), 1.5)


def test_normals_are_normalised_first():
    prediction = jnp.array([[0.0, 0.0, 5.0], [3.0, 4.0, 0.0]]).reshape(1, 1, 2, 3)
    label = jnp.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]).reshape(1, 1, 2, 3)
    np.testing.assert_allclose(normals_l1(prediction, label), (0.4 + 0.8) / 6, rtol=1e-6)


def test_zero_normals_have_a_finite_gradient():
    gradient = jax.grad(normals_l1)(jnp.zeros((1, 1, 1, 3)), jnp.ones((1, 1, 1, 3)))
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", ["softmax_cross_entropy", "depth_l1", "normals_l1"])
def test_nothing_valid_gives_zero_and_no_gradient(name):
    prediction = jax.random.normal(jax.random.key(0), (1, 2, 2, 3 if name != "depth_l1" else 1))
    label = jnp.full((1, 2, 2, 1 if name == "softmax_cross_entropy" else prediction.shape[-1]), 255.0)
    value, gradient = jax.value_and_grad(LOSSES[name])(prediction, label)
    assert value == 0
    np.testing.assert_array_equal(gradient, jnp.zeros_like(gradient))


def test_every_task_has_its_loss():
    assert {task.loss for task in tasks.TASKS.values()} <= set(LOSSES)


def test_objective_names_and_weighs_every_prediction():
    rng = np.random.default_rng(0)
    depth = jnp.asarray(rng.uniform(1, 5, (1, 8, 8, 1)), jnp.float32)
    edge = jnp.asarray(rng.random((1, 8, 8, 1)) < 0.3, jnp.float32)
    small = jnp.asarray(rng.standard_normal((1, 4, 4, 1)), jnp.float32)
    outputs = {
        "depth": depth + 1,
        "initial_edge": small,
        "deep_supervision": {"scale_0": {"edge": small, "depth": small}},
    }
    total, components = Objective(("depth",), {"depth": 2.0})(outputs, {"depth": depth, "edge": edge})
    assert set(components) == {"depth", "deepsup_edge", "scale_0_edge", "scale_0_depth", "total"}
    np.testing.assert_allclose(components["depth"], 1, rtol=1e-6)
    np.testing.assert_allclose(components["deepsup_edge"], components["scale_0_edge"])
    expected = 2 + 2 * components["scale_0_depth"] + 50 * (components["scale_0_edge"] + components["deepsup_edge"])
    np.testing.assert_allclose(total, expected, rtol=1e-5)


def test_objective_refuses_unknown_weights():
    with pytest.raises(ValueError, match=r"unknown tasks \['colour'\]"):
        Objective(("depth",), {"colour": 1.0})
