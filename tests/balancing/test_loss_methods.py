"""Methods that see only the losses, against hand-computed cases."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import balancing
from mtl_jax.balancing import Signals

KEY = jax.random.key(0)


def play(balancer, *steps):
    """Weights of each step, the losses of which are given, and the last state."""
    state = balancer.init(len(steps[0]), jnp.zeros(3))
    weights = []
    for losses in steps:
        decision, state = balancer.update(state, Signals(jnp.array(losses), KEY))
        weights.append(decision.weights)
    return np.array(weights), state


def test_fixed():
    np.testing.assert_array_equal(play(balancing.fixed(), [2.0, 3.0])[0], [[1, 1]])
    np.testing.assert_array_equal(play(balancing.fixed(weights=(1, 10)), [2.0, 3.0])[0], [[1, 10]])
    with pytest.raises(ValueError, match=r"\(1, 10\) for 3 tasks"):
        balancing.fixed(weights=(1, 10)).init(3, ())


@pytest.mark.parametrize(("name", "regularizer"), [("uncertainty", 0.5), ("imtl_l", 1.0)])
def test_learned_scales(name, regularizer):
    """Adam's first step is its learning rate, against the gradient's sign; in balance the weights are r / L."""
    balancer = balancing.BALANCERS[name](learning_rate=0.1)
    weights, state = play(balancer, [4.0, 0.1], [4.0, 0.1])
    np.testing.assert_allclose(weights, [[1, 1], [np.exp(-0.1), np.exp(0.1)]], rtol=1e-5)

    def step(state, _):
        decision, state = balancer.update(state, Signals(jnp.array([4.0, 0.1]), KEY))
        return state, decision.weights

    _, weights = jax.lax.scan(step, state, length=600)
    np.testing.assert_allclose(weights[-1], [regularizer / 4, regularizer / 0.1], rtol=1e-3)


def test_learned_scales_descend_their_objective():
    """The closed form is the gradient of exp(-s) L + r s: one step of Adam on that is the same."""
    losses = jnp.array([2.0, 0.3, 1e-3])
    gradient = jax.grad(lambda s: jnp.sum(jnp.exp(-s) * losses + 0.5 * s))(jnp.zeros(3))
    _, state = play(balancing.uncertainty(), losses)
    np.testing.assert_allclose(state["adam"][0].mu, 0.1 * gradient, rtol=1e-6)


def test_learned_scales_are_bounded():
    balancer = balancing.uncertainty(learning_rate=10.0)
    weights, _ = play(balancer, *[[1e-12, 1e9]] * 8)
    assert np.isfinite(weights).all()
    np.testing.assert_allclose(weights[-1], np.exp([20, -20]), rtol=1e-5)


def test_dwa():
    """Windows of two steps: means 2 and 4, then 1 and 4; ratios 1/2 and 1 from the fifth step on."""
    weights, _ = play(balancing.dwa(window=2), [1.0, 5.0], [3.0, 3.0], [1.5, 4.0], [0.5, 4.0], [9.0, 9.0], [9.0, 9.0])
    expected = 2 * np.exp([0.25, 0.5]) / np.exp([0.25, 0.5]).sum()
    np.testing.assert_allclose(weights, [[1, 1]] * 4 + [expected] * 2, rtol=1e-6)


def test_dwa_of_an_epoch():
    """With a window of one step the ratio is that of the last two losses, whatever the temperature."""
    weights, _ = play(balancing.dwa(window=1, temperature=0.5), [1.0, 2.0], [2.0, 1.0], [7.0, 7.0])
    np.testing.assert_allclose(weights[2], 2 * np.exp([4, 1]) / np.exp([4, 1]).sum(), rtol=1e-6)


def test_dwa_averages_over_the_steps_with_labels():
    """A task's windows of two steps, one of them without labels or both, and what is in place of a mean then."""
    weights, _ = play(balancing.dwa(window=2), [8.0, 1.0], [0.0, 1.0], [0.0, 1.0], [2.0, 1.0], *[[0.0, 1.0]] * 5)
    expected = 2 * np.exp([0.125, 0.5]) / np.exp([0.125, 0.5]).sum()  # from means 8 and 2
    np.testing.assert_allclose(weights[4:6], [expected] * 2, rtol=1e-6)
    np.testing.assert_allclose(weights[6:], np.ones((3, 2)), rtol=1e-6)  # a mean of nothing: that of before
    np.testing.assert_array_equal(play(balancing.dwa(window=1), [0.0, 1.0], [1.0, 1.0], [1.0, 1.0])[0][2], [1, 1])


LEAVING_OUT = {
    "geometric": lambda tasks: balancing.geometric(),
    "dtp": lambda tasks: balancing.dtp(),
    "famo": lambda tasks: balancing.famo(),
    "stch": lambda tasks: balancing.stch(preference=(0.2, 0.5, 0.9)[:tasks]),
    "stch, warm-up": lambda tasks: balancing.stch(preference=(0.2, 0.5, 0.9)[:tasks], warm_up=1),
}


@pytest.mark.parametrize("name", LEAVING_OUT)
def test_a_task_without_labels_is_left_out(name):
    """The others have the weights that they would have on their own."""
    rng = np.random.default_rng(0)
    steps = [(losses, 0.5 * losses**1.2) for losses in rng.uniform(0.5, 3, (4, 2)).astype(np.float32)]

    def weights(tasks, hidden):
        balancer = LEAVING_OUT[name](tasks)
        state, found = balancer.init(tasks, ()), []
        for before, after in steps:
            before, after = (np.append(x, [0] * hidden).astype(np.float32) for x in (before, after))
            decision, state = balancer.update(state, Signals(jnp.array(before), KEY))
            state = balancer.observe(state, before, after) if balancer.observe else state
            found.append(decision.weights)
        return np.array(found)

    alone, with_another = weights(2, 0), weights(3, 1)
    np.testing.assert_allclose(with_another[:, :2], alone, rtol=1e-6)
    np.testing.assert_array_equal(with_another[:, 2], 0)
    assert np.ptp(alone, axis=0).min() > 1e-3


@pytest.mark.parametrize("name", ["uncertainty", "imtl_l", "famo"])
def test_learned_weights_rest_without_labels(name):
    """Also where Adam has momentum."""
    balancer = balancing.BALANCERS[name]()
    state = balancer.init(2, ())
    learned = []
    for losses in ([2.0, 3.0], [2.0, 0.0], [2.0, 3.0]):
        _, state = balancer.update(state, Signals(jnp.array(losses), KEY))
        if balancer.observe is not None:
            state = balancer.observe(state, jnp.array(losses), jnp.array(losses) * jnp.array([0.7, 0.9]))
        learned.append(state["logits" if name == "famo" else "log_variances"])
    assert learned[0][1] == learned[1][1] != learned[2][1]
    assert learned[0][1] != 0
    assert name == "famo" or learned[0][0] != learned[1][0]


@pytest.mark.parametrize("distribution", ["normal", "dirichlet"])
def test_rlw(distribution):
    balancer = balancing.rlw(distribution=distribution)
    draw = jax.jit(jax.vmap(lambda key: balancer.update((), Signals(jnp.ones(3), key))[0].weights))
    weights = draw(jax.random.split(KEY, 4000))
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    # The standard error of the means is 0.004.
    np.testing.assert_allclose(weights.mean(axis=0), 1 / 3, atol=0.02)
    if distribution == "dirichlet":  # variance of a uniform point of the triangle
        np.testing.assert_allclose(weights.var(axis=0), 1 / 18, rtol=0.1)
    np.testing.assert_array_equal(balancer.update((), Signals(jnp.ones(1), KEY))[0].weights, [1])


def test_geometric_weights_are_the_gradient():
    losses = jnp.array([2.0, 0.5, 3.0])
    weights, _ = play(balancing.geometric(), losses)
    np.testing.assert_allclose(weights[0], jax.grad(lambda x: jnp.prod(x) ** (1 / 3))(losses), rtol=1e-5)
    np.testing.assert_allclose(
        play(balancing.geometric(), [2.0, 1e-9])[0], [[0.5 * (5e-9) ** 0.5, 0.5 * 2e8**0.5]], rtol=1e-5
    )


def test_dtp():
    kpi = lambda losses: losses  # noqa: E731
    weights, _ = play(balancing.dtp(kpi=kpi, alpha=0.5, gamma=1.0), [0.5, 0.2], [0.25, 0.4])
    focal = lambda k: -(1 - k) * np.log(k)  # noqa: E731
    np.testing.assert_allclose(weights, [[focal(0.5), focal(0.2)], [focal(0.375), focal(0.3)]], rtol=1e-5)


def test_dtp_prefers_the_larger_loss():
    weights, _ = play(balancing.dtp(), [np.log(2), 1e-9, 1e4])
    np.testing.assert_allclose(weights[0, 0], 0.25 * np.log(2), rtol=1e-5)
    assert 0 <= weights[0, 1] < 1e-9
    np.testing.assert_allclose(weights[0, 2], -np.log(1e-6), rtol=1e-4)


def test_famo():
    balancer = balancing.famo(weight_decay=0.0)
    state = balancer.init(2, ())
    losses = jnp.array([1.0, 4.0])
    np.testing.assert_allclose(balancer.update(state, Signals(losses, KEY))[0].weights, [0.8, 0.2], rtol=1e-6)

    # The first task fell more: its logit falls, by Adam's first step.
    state = balancer.observe(state, losses, jnp.array([0.5, 3.9]))
    np.testing.assert_allclose(state["logits"], [-0.025, 0.025], rtol=1e-4)
    z = np.exp([-0.025, 0.025])
    weights = balancer.update(state, Signals(losses, KEY))[0].weights
    np.testing.assert_allclose(weights, z / [1, 4] / (z / [1, 4]).sum(), rtol=1e-5)


def test_famo_gradient():
    """Of z·δ + decay |ξ|²/2, by Adam's first moment."""
    balancer = balancing.famo(weight_decay=0.1)
    state = balancer.init(3, ()) | {"logits": jnp.array([0.3, -0.2, 0.5])}
    before, after = jnp.array([1.0, 2.0, 3.0]), jnp.array([0.9, 2.5, 1.0])
    delta = jnp.log(before) - jnp.log(after)
    gradient = jax.grad(lambda xi: jax.nn.softmax(xi) @ delta + 0.05 * xi @ xi)(state["logits"])
    moment = balancer.observe(state, before, after)["adam"][1][0].mu
    np.testing.assert_allclose(moment, 0.1 * gradient, rtol=1e-5)


def test_famo_at_the_minimum():
    balancer = balancing.famo(minimum=1.0)
    state = balancer.init(2, ())
    state = balancer.observe(state, jnp.array([1.0, 2.0]), jnp.array([0.5, 1.5]))  # below it counts as at it
    weights = balancer.update(state, Signals(jnp.array([1.0, 2.0]), KEY))[0].weights
    np.testing.assert_allclose(weights, [1, 0], atol=1e-6)


def test_stch_weights_are_the_gradient():
    preference, ideal, losses = jnp.array([0.2, 0.8]), jnp.array([0.1, 0.0]), jnp.array([2.0, 0.7])
    smooth = lambda x: 0.3 * jax.nn.logsumexp(preference * (x - ideal) / 0.3)  # noqa: E731
    weights, _ = play(balancing.stch(mu=0.3, preference=(0.2, 0.8), ideal=(0.1, 0.0)), losses)
    np.testing.assert_allclose(weights[0], jax.grad(smooth)(losses), rtol=1e-5)


def test_stch_compares_with_the_losses_of_the_warm_up():
    """Then a task whose loss has fallen by less weighs more, whatever the unit."""
    weights, _ = play(balancing.stch(mu=0.5, warm_up=2), [4.0, 0.1], [2.0, 0.3], [1.0, 0.1])

    def objective(losses):
        return 0.5 * jax.nn.logsumexp(jnp.log(losses / jnp.array([3.0, 0.2])) / 2 / 0.5)

    np.testing.assert_allclose(weights[:2], [[1 / 8, 5], [1 / 4, 5 / 3]], rtol=1e-6)
    np.testing.assert_allclose(weights[2], jax.grad(objective)(jnp.array([1.0, 0.1])), rtol=1e-5)


def test_stch_tends_to_the_largest():
    np.testing.assert_allclose(play(balancing.stch(mu=1e-3), [2.0, 1.0])[0], [[0.5, 0]], atol=1e-6)
    with pytest.raises(ValueError, match=r"ideal = \(0.0,\) for 2 tasks"):
        balancing.stch(ideal=(0.0,)).init(2, ())


@pytest.mark.parametrize(
    ("factory", "wrong"),
    [
        (balancing.dwa, {"window": 0}),
        (balancing.dwa, {"temperature": 0.0}),
        (balancing.rlw, {"distribution": "uniform"}),
        (balancing.dtp, {"alpha": 0.0}),
        (balancing.dtp, {"gamma": -1.0}),
        (balancing.uncertainty, {"learning_rate": 0.0}),
        (balancing.imtl_l, {"learning_rate": -1.0}),
        (balancing.famo, {"learning_rate": -1.0}),
        (balancing.famo, {"weight_decay": -1.0}),
        (balancing.gradnorm, {"alpha": -1.0}),
        (balancing.gradnorm, {"learning_rate": 0.0}),
        (balancing.aligned_mtl, {"preference": (0.0, 0.0)}),
        (balancing.aligned_mtl, {"preference": (-1.0, 2.0)}),
        (balancing.excess_mtl, {"step_size": -1.0}),
        (balancing.stch, {"mu": 0.0}),
        (balancing.stch, {"warm_up": -1}),
        (balancing.stch, {"warm_up": 10, "ideal": (0.0, 0.0)}),
        (balancing.stch, {"preference": (0.0, 1.0)}),
        (balancing.gradvac, {"beta": 2.0}),
        (balancing.graddrop, {"leak": -0.1}),
        (balancing.db_mtl, {"beta": 1.0}),
        (balancing.db_mtl, {"sigma": -1.0}),
    ],
)
def test_hyper_parameters_out_of_range(factory, wrong):
    (name,) = {*wrong} - {"ideal"}
    with pytest.raises(ValueError, match=rf"{name} (is )?'?{re.escape(str(wrong[name]))}.* (must|may) be"):
        factory(**wrong)
