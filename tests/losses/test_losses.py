import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import tasks
from mtl_jax.losses import LOSSES, Objective, balanced_cross_entropy, count, depth_l1, normals_l1, softmax_cross_entropy
from mtl_jax.outputs import Outputs
from tests.losses.examples import pair


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


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_valid_gives_zero_and_no_gradient(name):
    prediction, label = pair(name, 2)
    value, gradient = jax.value_and_grad(LOSSES[name])(prediction, jnp.full_like(label, 255))
    assert value == 0
    np.testing.assert_array_equal(gradient, jnp.zeros_like(gradient))


@pytest.mark.parametrize("name", LOSSES)
def test_an_unlabelled_image_changes_neither_loss_nor_gradients(name):
    prediction, label = pair(name, 4)
    rest = np.array([0, 2, 3])
    differentiate = jax.jit(jax.value_and_grad(LOSSES[name]))
    value, gradient = differentiate(prediction, label.at[1].set(255))
    alone, gradient_alone = differentiate(prediction[rest], label[rest])
    np.testing.assert_allclose(value, alone, rtol=1e-6)  # the order of a sum in float32
    np.testing.assert_allclose(gradient[rest], gradient_alone, rtol=1e-5, atol=1e-8)
    np.testing.assert_array_equal(gradient[1], np.zeros_like(gradient[1]))


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_parts_add_up_to_that_of_the_batch(name):
    """Parts of unlike size, share of ignored elements and share of positives; the mean of their own means differs."""
    with jax.enable_x64(True):
        prediction, label = (x.astype(jnp.float64) for x in pair(name, 6))
        label = label.at[0].set(255).at[1, :4].set(255)
        if name == "balanced_cross_entropy":  # whose weight is that of the batch
            label = label.at[2].set(1)
        loss, counts, parts = LOSSES[name], count(label), (slice(0, 2), slice(2, 6))
        differentiate = jax.jit(jax.value_and_grad(loss))
        value, gradient = differentiate(prediction, label)
        found = [differentiate(prediction[part], label[part], counts=counts) for part in parts]
        np.testing.assert_allclose(sum(value for value, _ in found), value, rtol=1e-14)
        np.testing.assert_allclose(jnp.concatenate([part for _, part in found]), gradient, rtol=1e-13, atol=1e-18)
        own_means = [differentiate(prediction[part], label[part])[0] for part in parts]
        assert abs(np.mean(own_means) / value - 1) > 1e-3


def test_a_soft_label_is_a_share_of_a_positive():
    logits, label = jnp.array([[0.5], [2.0], [-1.0]]), jnp.array([[0.3], [1.0], [255.0]])
    p = jax.nn.sigmoid(logits[:2, 0])
    terms = -0.95 * jnp.array([0.3, 1]) * jnp.log(p) - 0.05 * jnp.array([0.7, 0]) * jnp.log(1 - p)
    value = balanced_cross_entropy(logits, label, 0.95, soft=True)
    np.testing.assert_allclose(value, terms.mean(), rtol=1e-6)
    hard = jnp.round(label)
    np.testing.assert_array_equal(balanced_cross_entropy(logits, hard, soft=True), balanced_cross_entropy(logits, hard))


def test_balanced_cross_entropy_weighs_by_the_valid_elements():
    logits = jnp.array([0.0, 1.0, 2.0, -1.0, 3.0]).reshape(1, 1, 5, 1)
    label = jnp.array([1.0, 0.0, 0.0, 255.0, 0.0]).reshape(1, 1, 5, 1)
    terms = [0.75 * np.log(2), *(0.25 * np.log1p(np.exp(x)) for x in (1, 2, 3))]
    np.testing.assert_allclose(balanced_cross_entropy(logits, label), np.mean(terms), rtol=1e-6)
    fixed = [0.95 * np.log(2), *(0.05 * np.log1p(np.exp(x)) for x in (1, 2, 3))]
    np.testing.assert_allclose(balanced_cross_entropy(logits, label, 0.95), np.mean(fixed), rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 7, 9, 1), (3, 31, 43, 1), (2, 64, 48, 1)])
def test_balanced_cross_entropy_is_the_plain_mean_where_all_is_valid(shape):
    """To the last bit, gradients too: numbers without 255 are those of before it was ignored."""

    def plain(logits, label):
        positive = label >= 0.5
        weight = 1 - positive.mean(dtype=logits.dtype)
        return jnp.where(positive, weight * jax.nn.softplus(-logits), (1 - weight) * jax.nn.softplus(logits)).mean()

    rng = np.random.default_rng(0)
    logits, label = jnp.asarray(rng.standard_normal(shape), jnp.float32), jnp.asarray(rng.random(shape) < 0.3)
    label = label.astype(jnp.float32)
    got = jax.jit(jax.value_and_grad(balanced_cross_entropy))(logits, label)
    wanted = jax.jit(jax.value_and_grad(plain))(logits, label)
    jax.tree.map(np.testing.assert_array_equal, got, wanted)


def test_every_task_has_its_loss():
    assert {task.loss for task in tasks.TASKS.values()} <= set(LOSSES)


def test_objective_names_and_weighs_every_prediction():
    rng = np.random.default_rng(0)
    depth = jnp.asarray(rng.uniform(1, 5, (1, 8, 8, 1)), jnp.float32)
    edge = jnp.asarray(rng.random((1, 8, 8, 1)) < 0.3, jnp.float32)
    small = jnp.asarray(rng.standard_normal((1, 4, 4, 1)), jnp.float32)
    intermediate = {"deepsup": {"edge": small}, "scale_0": {"edge": small, "depth": small}}
    outputs = Outputs({"depth": depth + 1}, intermediate)
    total, components = Objective(("depth",), {"depth": 2.0})(outputs, {"depth": depth, "edge": edge})
    assert set(components) == {"depth", "deepsup_edge", "scale_0_edge", "scale_0_depth", "total"}
    np.testing.assert_allclose(components["depth"], 1, rtol=1e-6)
    np.testing.assert_allclose(components["deepsup_edge"], components["scale_0_edge"])
    expected = 2 + 2 * components["scale_0_depth"] + 50 * (components["scale_0_edge"] + components["deepsup_edge"])
    np.testing.assert_allclose(total, expected, rtol=1e-5)


def test_objective_names_the_terms_of_a_sum():
    depth = jnp.asarray(np.random.default_rng(0).uniform(1, 5, (1, 8, 8, 1)), jnp.float32)
    outputs = Outputs({"depth": depth + 1}, {"deepsup": {"depth": depth[:, ::2, ::2]}})
    objective = Objective(("depth",), {"depth": 2.0}, {"depth": "l1+0.5*l2"})
    total, components = objective(outputs, {"depth": depth})
    for name in ("depth", "deepsup_depth"):
        np.testing.assert_allclose(components[name], components[f"{name}/l1"] + components[f"{name}/l2"], rtol=1e-6)
    np.testing.assert_allclose([components["depth/l1"], components["depth/l2"]], [1, 0.5], rtol=1e-6)
    np.testing.assert_allclose(total, 2 * (components["depth"] + components["deepsup_depth"]), rtol=1e-6)
    sums, named = objective.by_task(outputs, {"depth": depth})
    assert named.keys() == components.keys()
    np.testing.assert_allclose(2 * sums["depth"], total, rtol=1e-6)


def test_objective_refuses_unknown_weights():
    with pytest.raises(ValueError, match=r"unknown tasks \['colour'\]"):
        Objective(("depth",), {"colour": 1.0})
