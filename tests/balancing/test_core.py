"""Gradients of several losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import balancing
from mtl_jax.balancing import Balancer, Decision

KEY = jax.random.key(0)
TASKS = ("near", "far", "flat")
GOALS = {"near": 0.0, "far": 1.0, "flat": 2.0}
X = jnp.array([[1.0, 2.0], [0.5, -1.0], [2.0, 0.0]])


def losses(shared, specific, x):
    """A shared linear map and one vector a task; aux is the map's output."""
    features = jnp.tanh(x @ shared["w"] + shared["b"][None])
    values = {task: jnp.mean((features @ specific[task] - GOALS[task]) ** 2) for task in specific}
    return values, features


def parameters(tasks=TASKS):
    keys = jax.random.split(KEY, len(tasks) + 1)
    shared = {"w": jax.random.normal(keys[0], (2, 4)), "b": jnp.full(4, 0.1)}
    return shared, {task: jax.random.normal(key, (4,)) for task, key in zip(tasks, keys[1:], strict=True)}


def weighing(weights, needs):
    """A method that always decides for the same weights."""
    return Balancer(lambda n, shared: (), lambda state, signals: (Decision(jnp.array(weights)), state), needs)


def balanced(balancer, tasks=TASKS):
    shared, specific = parameters(tasks)
    step = jax.jit(balancing.value_and_grad(losses, balancer, tasks))
    return step(balancer.init(len(tasks), shared), KEY, shared, specific, X)


def weighted_sum(weights, tasks=TASKS):
    def total(shared, specific):
        values, _ = losses(shared, specific, X)
        return sum(w * values[task] for w, task in zip(weights, tasks, strict=True))

    return total


def assert_trees_close(actual, expected):
    """In float32, of sums of a dozen products: a few units in the last place."""
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-6), actual, expected)


WEIGHTS = (0.5, 2.0, 3.0)


def test_losses_alone_weigh_all_parameters():
    result = balanced(weighing(WEIGHTS, "losses"))
    shared, specific = jax.grad(weighted_sum(WEIGHTS), argnums=(0, 1))(*parameters())
    assert_trees_close(result.shared, shared)
    assert_trees_close(result.specific, specific)
    assert result.cosines is None
    assert result.weights == dict(zip(TASKS, WEIGHTS, strict=True))


@pytest.mark.parametrize("needs", ["gramian", "jacobian"])
def test_gradients_weigh_the_shared_parameters(needs):
    result = balanced(weighing(WEIGHTS, needs))
    assert_trees_close(result.shared, jax.grad(weighted_sum(WEIGHTS))(*parameters()))
    assert_trees_close(result.specific, jax.grad(weighted_sum((1, 1, 1)), argnums=1)(*parameters()))


def test_heads_of_other_tasks_take_no_part_in_a_gradient():
    """Three backward passes through the shared part, but only one through each head."""

    def with_sums(shared, specific, x):
        features = jnp.tanh(x @ shared["w"])
        return {task: jnp.sum(jax.lax.cumsum(features @ specific[task]) ** 2) for task in specific}, None

    step = balancing.value_and_grad(with_sums, weighing(WEIGHTS, "gramian"), TASKS)
    text = str(jax.make_jaxpr(step)((), KEY, *parameters(), X))
    assert text.count(" tanh ") == 1
    assert text.count(" cumsum[") == 3 + 3


def through_features(balancer):
    """The step of `losses` with its encoder apart."""
    shared, heads = parameters()

    def encode(shared, x):
        return jnp.tanh(x @ shared["w"] + shared["b"][None]), "encoded"

    def of_features(features, specific, x):
        return {task: jnp.mean((features @ specific[task] - GOALS[task]) ** 2) for task in specific}, "decoded"

    step = balancing.value_and_grad(of_features, balancer, TASKS, encode=encode)
    return step(balancer.init(len(TASKS), shared), KEY, shared, heads, X)


@pytest.mark.parametrize("needs", ["losses", "gramian", "jacobian"])
def test_gradients_to_features_go_on_through_the_encoder(needs):
    """Weighted alike, gradients give the same step wherever they are combined."""
    result, expected = through_features(weighing(WEIGHTS, needs)), balanced(weighing(WEIGHTS, needs))
    assert result.aux == ("encoded", "decoded")
    assert_trees_close(result.losses, expected.losses)
    assert_trees_close(result.shared, expected.shared)
    assert_trees_close(result.specific, expected.specific)


def test_mgda_ub_weighs_by_gradients_to_features():
    result = through_features(balancing.mgda_ub())
    shared, specific = parameters()
    features = losses(shared, specific, X)[1]

    def distance(task, features):
        return jnp.mean((features @ specific[task] - GOALS[task]) ** 2)

    rows = jnp.stack([jax.grad(distance, argnums=1)(task, features).ravel() for task in TASKS])
    expected = balancing.mgda().update((), balancing.Signals(jnp.ones(3), KEY, rows @ rows.T))[0].weights
    np.testing.assert_allclose(list(result.weights.values()), expected, rtol=1e-4, atol=1e-6)
    assert_trees_close(result.shared, jax.grad(weighted_sum(expected))(shared, specific))


def test_methods_of_features_need_an_encoder():
    with pytest.raises(ValueError, match="give the encode"):
        balancing.value_and_grad(losses, balancing.mgda_ub(), TASKS)


def test_losses_and_aux():
    result = balanced(balancing.fixed())
    expected, features = losses(*parameters(), X)
    assert_trees_close(result.losses, expected)
    np.testing.assert_allclose(result.aux, features, rtol=1e-6)


def test_signals():
    """The Gramian and the cosines are those of the gradients that jax.jacrev finds, in the tasks' order."""
    seen = {}

    def update(state, signals):
        seen.update(gramian=signals.gramian, jacobian=signals.jacobian, losses=signals.losses)
        return Decision(jnp.ones(3)), state

    order = ("flat", "near", "far")
    shared, specific = parameters()
    step = balancing.value_and_grad(losses, Balancer(lambda n, s: (), update, "jacobian"), order)
    result = step((), KEY, shared, specific, X)
    values = lambda shared: jnp.stack([losses(shared, specific, X)[0][task] for task in order])  # noqa: E731
    jacobian = jax.jacrev(values)(shared)
    assert_trees_close(seen["jacobian"], jacobian)
    rows = np.concatenate([np.reshape(leaf, (3, -1)) for leaf in jax.tree.leaves(jacobian)], axis=1)
    np.testing.assert_allclose(seen["gramian"], rows @ rows.T, rtol=1e-5)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(result.cosines, unit @ unit.T, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(seen["losses"], [result.losses[task] for task in order])


def test_a_gradient_of_its_own():
    """What a method returns as a gradient is used as it is."""
    update = lambda state, signals: (Decision(jnp.ones(3), jax.tree.map(lambda g: g[1], signals.jacobian)), state)  # noqa: E731
    result = balanced(Balancer(lambda n, shared: (), update, "jacobian"))
    assert_trees_close(result.shared, jax.grad(weighted_sum((0, 1, 0)))(*parameters()))


@pytest.mark.parametrize("needs", ["losses", "gramian", "jacobian"])
def test_one_task(needs):
    result = balanced(weighing((1.0,), needs), TASKS[:1])
    shared, specific = jax.grad(weighted_sum((1,), TASKS[:1]), argnums=(0, 1))(*parameters(TASKS[:1]))
    assert_trees_close(result.shared, shared)
    assert_trees_close(result.specific, specific)


def test_all_parameters_shared():
    shared, specific = parameters()
    step = balancing.value_and_grad(lambda s, _: losses(*s, X), balancing.pcgrad(), TASKS)
    result = jax.jit(step)((), KEY, (shared, specific), ())
    assert result.specific == ()
    assert jax.tree.structure(result.shared) == jax.tree.structure((shared, specific))


@pytest.mark.parametrize("tasks", [("near", "far"), ("near", "far", "flat", "deep"), ("near", "far", "Flat")])
def test_other_tasks_than_losses(tasks):
    step = balancing.value_and_grad(losses, balancing.fixed(), tasks)
    with pytest.raises(ValueError, match=r"flat|deep"):
        step((), KEY, *parameters(), X)


def test_gramian_and_combination():
    jacobian = {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones((2, 1, 2))}
    np.testing.assert_allclose(balancing.gramian(jacobian), [[7, 16], [16, 52]])
    combined = balancing.combine(jacobian, jnp.array([2.0, -1.0]))
    assert_trees_close(combined, {"a": jnp.array([-3.0, -2.0, -1.0]), "b": jnp.ones((1, 2))})


def test_low_precision_gradients():
    """Inner products of bfloat16 gradients are taken in float32; the combination keeps the leaf's type."""
    jacobian = jnp.full((2, 1000), 1.0, jnp.bfloat16)
    products = balancing.gramian(jacobian)
    assert products.dtype == jnp.float32
    np.testing.assert_array_equal(products, [[1000, 1000], [1000, 1000]])
    # Of 1 + 1/512 and its rounded value, 1, only one leaves something of opposite gradients.
    combined = balancing.combine(jacobian * jnp.array([[1], [-1]], jnp.bfloat16), jnp.array([1 + 1 / 512, 1]))
    assert combined.dtype == jnp.bfloat16
    np.testing.assert_array_equal(combined, np.full(1000, 1 / 512))


def test_low_precision_losses():
    """Methods see them in float32, in which the smallest has a logarithm."""

    def loss_fn(shared, specific):
        return {"a": (shared**2).astype(jnp.float16), "b": 3e-8 * shared.astype(jnp.float16)}, None

    balancer = balancing.geometric()
    result = balancing.value_and_grad(loss_fn, balancer, ("a", "b"))((), KEY, jnp.float32(1), ())
    assert result.losses["a"].dtype == result.weights["a"].dtype == jnp.float32
    least = float(np.float16(3e-8))
    np.testing.assert_allclose(result.weights["b"], least**-0.5 / 2, rtol=1e-5)


def test_constant_losses():
    """Of a task that is switched off: a number that depends on nothing."""
    loss_fn = lambda shared, specific: ({"a": shared**2, "off": 0.0}, None)  # noqa: E731
    for method in ("fixed", "cagrad"):
        grad = balancing.value_and_grad(loss_fn, balancing.parse(method), ("a", "off"))
        assert grad((), KEY, jnp.float32(3), ()).shared > 0


def test_state_of_something_else():
    shared, specific = parameters()
    for balancer, state in (
        (balancing.dwa(), balancing.dwa().init(2, shared)),
        (balancing.db_mtl(), balancing.db_mtl().init(3, {"w": shared["w"]})),
        (balancing.famo(), ()),
    ):
        grad = balancing.value_and_grad(losses, balancer, TASKS)
        with pytest.raises(ValueError, match=r"the method's state has .* in place of .* begin with balancer.init"):
            grad(state, KEY, shared, specific, X)


def test_cosines_of_a_zero_gradient():
    np.testing.assert_allclose(balancing.cosine_matrix(jnp.array([[4.0, 0.0], [0.0, 0.0]])), [[1, 0], [0, 0]])
