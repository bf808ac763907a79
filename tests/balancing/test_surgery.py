"""Methods that change the gradients themselves, against hand-solved cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import balancing
from mtl_jax.balancing import Signals, combine, gramian
from mtl_jax.balancing.pcgrad import partners

KEY = jax.random.key(0)


def act(balancer, rows, losses=None, state=None, key=KEY):
    """The gradient that a method makes of the rows of a matrix, its decision and its state."""
    jacobian = {"w": jnp.array(rows, dtype=float)}
    state = balancer.init(len(rows), {"w": jacobian["w"][0]}) if state is None else state
    losses = jnp.ones(len(rows)) if losses is None else jnp.array(losses)
    decision, state = balancer.update(state, Signals(losses, key, gramian(jacobian), jacobian))
    gradient = combine(jacobian, decision.weights) if decision.gradient is None else decision.gradient
    return np.array(gradient["w"]), decision, state


def test_pcgrad_two_tasks():
    """g = (1, 0) and (-1, 1): g·g' = -1; p = (1/2, 1/2) and (0, 1)."""
    gradient, decision, _ = act(balancing.pcgrad(), [[1, 0], [-1, 1]])
    np.testing.assert_allclose(gradient, [0.5, 1.5], rtol=1e-6)
    np.testing.assert_allclose(decision.weights, [2, 1.5], rtol=1e-6)


def test_pcgrad_leaves_what_does_not_conflict():
    np.testing.assert_allclose(act(balancing.pcgrad(), [[1, 0], [1, 2]])[1].weights, [1, 1])
    np.testing.assert_allclose(act(balancing.pcgrad(), [[3, -4]])[0], [3, -4])


def projected(rows, order):
    """Algorithm 1 on the gradients themselves, with a given order of the others for each task."""
    out = []
    for i, others in enumerate(order):
        p = rows[i].copy()
        for j in others:
            if (dot := p @ rows[j]) < 0:
                p -= dot / (rows[j] @ rows[j]) * rows[j]
        out.append(p)
    return np.sum(out, axis=0)


def test_pcgrad_from_the_gramian_is_pcgrad_on_the_gradients():
    rows = np.random.default_rng(0).normal(size=(4, 6))
    rows[1] -= rows[0]
    rows[3] -= rows[2] + rows[0]
    for seed in range(5):
        key = jax.random.key(seed)
        order = np.argmax(partners(key, 4), axis=-1).T
        np.testing.assert_allclose(act(balancing.pcgrad(), rows, key=key)[0], projected(rows, order), rtol=1e-4)


def test_orders_are_random_and_complete():
    orders = jax.vmap(lambda key: partners(key, 4))(jax.random.split(KEY, 600))
    orders = np.swapaxes(np.argmax(orders, axis=-1), 1, 2)  # [keys, task, position]
    for task in range(4):
        kinds, counts = np.unique(orders[:, task], axis=0, return_counts=True)
        assert [sorted(kind) for kind in kinds] == [[t for t in range(4) if t != task]] * 6
        assert counts.min() > 60  # of 100 each


def test_gradvac_begins_as_pcgrad():
    rows = np.random.default_rng(1).normal(size=(4, 6))
    rows[1] -= rows[0]
    expected, decision, _ = act(balancing.pcgrad(), rows)
    gradient, vaccinated, _ = act(balancing.gradvac(), rows)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(vaccinated.weights, decision.weights, rtol=1e-4)


def test_gradvac_turns_to_the_target():
    """Orthogonal gradients of lengths 1 and 2, target 0.6: p_1 = (1, 0.75), whose cosine with (0, 2) is 0.6."""
    state = {"targets": jnp.full((2, 2), 0.6)}
    gradient, decision, state = act(balancing.gradvac(beta=0.25), [[1, 0], [0, 2]], state=state)
    np.testing.assert_allclose(decision.weights, [1 + 2 * 0.75, 1 + 0.75 / 2], rtol=1e-6)
    np.testing.assert_allclose(gradient, [2.5, 2.75], rtol=1e-6)
    np.testing.assert_allclose(state["targets"], [[0.6, 0.45], [0.45, 0.6]], rtol=1e-6)  # 0.75 * 0.6 + 0.25 * 0


def test_gradvac_learns_from_agreement_too():
    _, decision, state = act(balancing.gradvac(), [[1, 0], [3, 4]])
    np.testing.assert_allclose(decision.weights, [1, 1])
    np.testing.assert_allclose(state["targets"], [[0, 0.3], [0.3, 0]], rtol=1e-6)


def test_gradvac_opposite_gradients():
    """Nothing is left of either; what rounding leaves must not reach the targets of the third."""
    _, _, state = act(balancing.gradvac(), [[0.3, 0.7, 0.1], [-0.3, -0.7, -0.1], [0.1, 0.2, -0.3]])
    assert np.abs(state["targets"]).max() <= 0.5
    gradient, _, _ = act(balancing.gradvac(), [[0.3, 0.7], [-0.3, -0.7]])
    np.testing.assert_allclose(gradient, [0, 0], atol=1e-6)


def test_gradvac_after_equal_gradients():
    """A cosine of 1 with another gradient is out of reach, and not asked for."""
    state = {"targets": jnp.ones((2, 2))}
    np.testing.assert_allclose(act(balancing.gradvac(), [[1, 2], [1, 2]], state=state)[1].weights, [1, 1], rtol=1e-6)
    assert act(balancing.gradvac(), [[1, 0], [0, 1]], state=state)[1].weights.max() < 30


def test_graddrop_by_element():
    """Signs agree in the first element, which is summed; in the second (3, -1) P is 3/4; the third is zero."""
    rows = [[1, 3, 0], [2, -1, 0]]
    draws = np.array([act(balancing.graddrop(), rows, key=key)[0] for key in jax.random.split(KEY, 400)])
    np.testing.assert_array_equal(draws[:, [0, 2]], [[3, 0]] * 400)
    assert set(draws[:, 1]) == {3, -1}
    assert (draws[:, 1] == 3).mean() == pytest.approx(0.75, abs=0.07)  # three standard errors


def test_graddrop_leak():
    rows = [[1, 3, -2], [2, -1, -5]]
    np.testing.assert_allclose(act(balancing.graddrop(leak=1.0), rows)[0], [3, 2, -7])
    half = act(balancing.graddrop(leak=0.5), rows)[0]
    np.testing.assert_allclose(half, (np.array([3, 2, -7]) + act(balancing.graddrop(), rows)[0]) / 2)
    np.testing.assert_allclose(act(balancing.graddrop(), rows[:1])[0], rows[0])


def test_graddrop_draws_every_leaf_anew():
    jacobian = {name: jnp.array([[1.0] * 64, [-1.0] * 64]) for name in "ab"}
    decision, _ = balancing.graddrop().update((), Signals(jnp.ones(2), KEY, jacobian=jacobian))
    assert (decision.gradient["a"] != decision.gradient["b"]).any()


def test_db_mtl():
    """Logarithms' gradients (3, 0) / 2 and (0, 1) / 4, without an average: both of length 1.5."""
    gradient, decision, state = act(balancing.db_mtl(beta=0.0), [[3, 0], [0, 1]], losses=[2.0, 4.0])
    np.testing.assert_allclose(gradient, [1.5, 1.5], rtol=1e-5)
    np.testing.assert_allclose(decision.weights, [0.5, 1.5], rtol=1e-5)
    np.testing.assert_allclose(state["average"]["w"], [[1.5, 0], [0, 0.25]], rtol=1e-5)


def test_db_mtl_average():
    """One task, unit loss: u = 0.5 g, then 0.5 u + 0.5 g'; with sigma 1 the second beta is 1/4."""
    for sigma, second in ((0.0, 0.5), (1.0, 0.25)):
        balancer = balancing.db_mtl(beta=0.5, sigma=sigma)
        gradient, _, state = act(balancer, [[4, 0]])
        np.testing.assert_allclose(gradient, [2, 0], rtol=1e-5)
        gradient, _, _ = act(balancer, [[0, 1]], state=state)
        np.testing.assert_allclose(gradient, [2 * second, 1 - second], rtol=1e-5)


def test_db_mtl_ignores_the_losses_units():
    rows, losses = np.random.default_rng(0).normal(size=(3, 5)), np.array([1.0, 2.0, 3.0])
    scale = np.array([1.0, 100.0, 0.01])
    expected = act(balancing.db_mtl(), rows, losses)[0]
    np.testing.assert_allclose(act(balancing.db_mtl(), rows * scale[:, None], losses * scale)[0], expected, rtol=1e-4)


def test_excess_mtl():
    """First step: E is the sum of the absolute values, and counts as 1. Then (3, 4) with squares 9 + 9, 16 + 0."""
    balancer = balancing.excess_mtl(step_size=0.1)
    _, decision, state = act(balancer, [[3, 0], [0, 2]])
    np.testing.assert_allclose(decision.weights, [0.5, 0.5], rtol=1e-6)
    np.testing.assert_allclose(state["first"], [3, 2], rtol=1e-6)
    _, decision, _ = act(balancer, [[3, 4], [0, 0]], state=state)
    growth = np.exp([0.1 * (9 / np.sqrt(18) + 4) / 3, 0])
    np.testing.assert_allclose(decision.weights, growth / growth.sum(), rtol=1e-5)


def test_excess_mtl_warm_up():
    """E of two steps: 3, then 3 / sqrt(2); and 2, then 0. Their means are what the third counts by: 0, 4 / sqrt(8)."""
    balancer = balancing.excess_mtl(step_size=0.1, warm_up=2)
    state = None
    for rows in ([[3, 0], [0, 2]], [[3, 0], [0, 0]]):
        _, decision, state = act(balancer, rows, state=state)
        np.testing.assert_allclose(decision.weights, [0.5, 0.5], rtol=1e-6)
    np.testing.assert_allclose(state["first"], [(3 + 3 / np.sqrt(2)) / 2, 1], rtol=1e-6)
    _, decision, last = act(balancer, [[0, 0], [0, 2]], state=state)
    growth = np.exp([0, 0.1 * 4 / np.sqrt(8)])
    np.testing.assert_allclose(decision.weights, growth / growth.sum(), rtol=1e-5)
    np.testing.assert_array_equal(last["first"], state["first"])


def test_excess_mtl_first_estimate_is_the_first_that_is_not_zero():
    balancer = balancing.excess_mtl()
    _, _, state = act(balancer, [[0, 0], [1, 0]])
    _, decision, state = act(balancer, [[5, 0], [1, 0]], state=state)
    np.testing.assert_allclose(state["first"], [5, 1])
    assert np.isfinite(decision.weights).all()
