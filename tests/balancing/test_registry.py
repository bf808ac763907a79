"""All methods by name: what holds for every one of them, and how they are written on the command line."""

import functools
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import balancing
from mtl_jax.balancing import BALANCERS, Signals, gramian
from tests.marks import slow

KEY = jax.random.key(0)
RANDOM = {"rlw", "pcgrad", "gradvac", "graddrop"}  # the order of the tasks changes what they draw

every_method = pytest.mark.parametrize("name", BALANCERS)


def losses(shared, specific, scale):
    """Quadratic losses with different optima of the shared vector and an own offset a task."""
    num_tasks = len(specific["offset"])
    goals = jnp.eye(num_tasks, 4) * jnp.arange(1.0, num_tasks + 1)[:, None]
    values = jnp.sum((shared["w"][None] - goals) ** 2, axis=1) + (specific["offset"] - 1) ** 2
    return {f"t{i}": scale * values[i] for i in range(num_tasks)}, ()


def start(balancer, num_tasks):
    shared = {"w": jnp.linspace(-1, 1, 4)}
    return balancer.init(num_tasks, shared), shared, {"offset": jnp.zeros(num_tasks)}


@functools.cache
def training(name, num_tasks):
    """Compiled (scale of the losses) -> state and parameters after three steps, losses and weights of each."""
    balancer = BALANCERS[name]()
    tasks = [f"t{i}" for i in range(num_tasks)]
    encode = (lambda shared, scale: (shared, ())) if balancer.features else None
    grad = balancing.value_and_grad(losses, balancer, tasks, encode=encode)

    def step(scale, carry, key):
        state, shared, specific = carry
        result = grad(state, key, shared, specific, scale)
        move = lambda old, gradient: old - 0.01 * gradient  # noqa: E731
        shared, specific = jax.tree.map(move, (shared, specific), (result.shared, result.specific))
        state = balancing.observe(
            balancer, tasks, result.state, result.losses, lambda: losses(shared, specific, scale)[0]
        )
        return (state, shared, specific), (result.losses, result.weights)

    keys = jax.random.split(KEY, 3)
    return jax.jit(lambda scale: jax.lax.scan(functools.partial(step, scale), start(balancer, num_tasks), keys))


def types(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), tree)


def assert_finite(tree):
    for leaf in jax.tree.leaves(tree):
        assert np.isfinite(leaf).all()


@every_method
@pytest.mark.parametrize("num_tasks", [1, slow(2), 3, slow(5)])
def test_three_steps(name, num_tasks):
    """Finite, and the state stays what it was at first, so that it can be checkpointed and scanned over."""
    first = start(BALANCERS[name](), num_tasks)
    last, (values, weights) = training(name, num_tasks)(1.0)
    assert types(last) == types(first)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(first[0]))
    assert_finite((last, values, weights))
    assert sum(value[-1] for value in values.values()) < sum(value[0] for value in values.values())


@pytest.mark.parametrize("name", [name for name in BALANCERS if name not in {"dtp", "db_mtl"}])
def test_one_task_is_left_alone(name):
    """At first: learned scales move later. DTP's weight is a measure of success, DB-MTL's gradient an average."""
    *_, (_, weights) = training(name, 1)(1.0)
    np.testing.assert_allclose(weights["t0"][0], 1, rtol=1e-6)


@pytest.mark.slow
@every_method
@pytest.mark.parametrize("num_tasks", [1, 3])
@pytest.mark.parametrize("scale", [0.0, 1e-12])
def test_vanishing_losses(name, num_tasks, scale):
    assert_finite(training(name, num_tasks)(scale))


@every_method
@pytest.mark.parametrize(
    ("dtype", "loss_dtype", "x64"),
    [
        ("bfloat16", "bfloat16", False),
        ("bfloat16", "float32", False),
        ("float32", "float32", True),
        ("float64", "float64", True),
    ],
)
def test_dtypes(name, dtype, loss_dtype, x64):
    """The state keeps its own; gradients have those of the parameters."""
    balancer = BALANCERS[name]()

    def loss_fn(shared, specific, scale):
        values, aux = losses(shared, specific, scale)
        return {task: value.astype(loss_dtype) for task, value in values.items()}, aux

    with jax.enable_x64(x64):
        shared, specific = {"w": jnp.zeros(4, dtype)}, {"offset": jnp.zeros(3, dtype)}
        state = balancer.init(3, shared)
        encode = (lambda shared, scale: (shared, ())) if balancer.features else None
        grad = balancing.value_and_grad(loss_fn, balancer, ("t0", "t1", "t2"), encode=encode)
        result = jax.eval_shape(grad, state, KEY, shared, specific, 1.0)
        assert types(result.state) == types(state)
        assert result.shared["w"].dtype == result.specific["offset"].dtype == dtype
        if balancer.observe is not None:
            values = jnp.stack([jnp.zeros((), loss_dtype)] * 3)
            assert types(jax.eval_shape(balancer.observe, state, values, values)) == types(state)


def signals(rows, values, key=KEY):
    jacobian = {"w": jnp.asarray(rows), "b": jnp.asarray(rows[:, :2])}
    return Signals(jnp.asarray(values), key, gramian(jacobian), jacobian)


@functools.cache
def play(name):
    """Compiled (signals of several steps) -> the last step's decision; four tasks."""
    balancer = BALANCERS[name]()

    def run(steps):
        state = balancer.init(4, {"w": jnp.zeros(6), "b": jnp.zeros(2)})
        for each in steps:
            decision, state = balancer.update(state, each)
            if balancer.observe is not None:
                state = balancer.observe(state, each.losses, 0.9 * each.losses**1.1)
        return decision

    return jax.jit(run)


@every_method
@pytest.mark.parametrize("absent", [slow((1,)), (0, 2), (0, 1, 2, 3)])
def test_zero_gradients(name, absent):
    """Of tasks that are without labels in a batch, their losses zero or not, at first or later."""
    rng = np.random.default_rng(0)
    rows, values = rng.normal(size=(4, 6)).astype("float32"), np.array([1.0, 2.0, 0.5, 3.0], "float32")
    without = rows.copy()
    without[list(absent)] = 0
    lost = values.copy()
    lost[list(absent)] = 0
    present, zero, all_zero = signals(rows, values), signals(without, values), signals(without, lost)
    for steps in ([zero, zero, present], [present, zero, present], [all_zero, present, all_zero]):
        assert_finite(play(name)(steps))


@pytest.mark.parametrize("name", [name for name in BALANCERS if name not in RANDOM])
def test_order_of_the_tasks(name):
    """Weights follow their tasks when the tasks are reordered, and the gradient stays."""
    rng = np.random.default_rng(0)
    order = np.array([2, 0, 3, 1])
    steps = [(rng.normal(size=(4, 6)).astype("float32"), rng.uniform(0.5, 2, 4).astype("float32")) for _ in range(3)]
    decision = play(name)([signals(*step) for step in steps])
    moved = play(name)([signals(rows[order], values[order]) for rows, values in steps])
    # Iterative solvers stop within their own tolerance; the closed forms agree to float32's.
    np.testing.assert_allclose(moved.weights, decision.weights[order], rtol=1e-3, atol=1e-5)
    if decision.gradient is not None:
        np.testing.assert_allclose(moved.gradient["w"], decision.gradient["w"], rtol=1e-3, atol=1e-5)


@every_method
def test_random_methods_use_the_key_alone(name):
    """The same key gives the same decision; another gives another for the random methods only."""
    rng = np.random.default_rng(1)
    rows, values = rng.normal(size=(4, 6)).astype("float32"), np.ones(4, "float32")
    rows[1::2] -= 2 * rows[::2]
    first, again, other = (play(name)([signals(rows, values, jax.random.key(seed))] * 3) for seed in (0, 0, 1))
    same = lambda a, b: all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))  # noqa: E731
    assert same(first, again)
    assert same(first, other) == (name not in RANDOM)


@every_method
def test_documented(name):
    factory = BALANCERS[name]
    assert factory.__name__ == name
    assert getattr(balancing, name) is factory
    assert name in balancing.__all__
    text = inspect.getdoc(factory)
    assert re.search(r"arXiv \d{4}\.\d{5}|(ICLR|ICML|ECCV|CVPR|NeurIPS|TMLR) \d{4}", text)
    for part in ("shared parameters", "weight", "cost:"):
        assert part in text.lower()
    for parameter in inspect.signature(factory).parameters.values():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert f"{parameter.name}:" in text


NEEDS = {"losses": "fixed uncertainty imtl_l dwa rlw geometric dtp famo stch", "jacobian": "graddrop db_mtl excess_mtl"}


@every_method
def test_parse_a_name(name):
    """What costs a backward pass a task, and what memory, does so by intention."""
    alone = [needs for needs, names in NEEDS.items() if name in names.split()]
    assert balancing.parse(name).needs == (alone[0] if alone else "gramian")


def weights(text, values):
    balancer = balancing.parse(text)
    return balancer.update(balancer.init(len(values), ()), Signals(jnp.array(values), KEY))[0].weights


def test_parse_values():
    np.testing.assert_allclose(weights("fixed:weights=1+10+5e+1", [1.0, 1.0, 1.0]), [1, 10, 50])
    np.testing.assert_allclose(weights("fixed:weights=2", [3.0]), [2])
    np.testing.assert_allclose(weights("fixed:weights=none", [3.0]), [1])
    expected, _ = balancing.rlw(distribution="dirichlet").update((), Signals(jnp.ones(2), KEY))
    np.testing.assert_array_equal(weights("rlw:distribution=dirichlet", [1.0, 1.0]), expected.weights)
    expected, _ = balancing.stch(mu=0.1, preference=(0.2, 0.8)).update((), Signals(jnp.array([1.0, 2.0]), KEY))
    np.testing.assert_array_equal(weights("stch:mu=1e-1,preference=0.2+0.8", [1.0, 2.0]), expected.weights)


def test_parse_several_parameters():
    balancer = balancing.parse("dwa:temperature=1,window=1")
    state = balancer.init(2, ())
    for values in ([1.0, 1.0], [2.0, 1.0], [1.0, 1.0]):
        decision, state = balancer.update(state, Signals(jnp.array(values), KEY))
    np.testing.assert_allclose(decision.weights, 2 * np.exp([2, 1]) / np.exp([2, 1]).sum(), rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sgd", "unknown balancing method 'sgd'; the balancing methods are fixed, uncertainty, .*excess_mtl"),
        ("", "unknown balancing method ''"),
        ("dwa:speed=1", "'speed=1' is no parameter=value of the balancing method dwa; .* temperature=2.0, window=100"),
        ("dwa:window", "'window' is no parameter=value of the balancing method dwa"),
        ("dwa:", "'dwa:' ends with a colon; write dwa:PARAMETER=VALUE, or dwa alone"),
        ("pcgrad:c=1", "'c=1' is no parameter=value of the balancing method pcgrad; it takes no parameters"),
        ("dtp:kpi=exp", "it takes gamma=2.0, alpha=0.1$"),
        ("dwa:window=2.5", "parameter window of the balancing method dwa is '2.5'; it must be a whole number"),
        ("dwa:temperature=hot", "parameter temperature .* is 'hot'; it must be a number"),
        ("dwa:temperature=nan", "parameter temperature .* is 'nan'; it must be a number"),
        ("dwa:window=1,window=2", "parameter window of the balancing method dwa is given twice"),
        ("dwa:window=0", "window 0; they must be positive"),
        ("excess_mtl:warm_up=-1", "warm_up is -1; it must be a number of steps, or 0"),
        ("fixed:weights=1+x", r"is '1\+x'; it must be numbers joined by \"\+\" or \"/\" or none"),
        ("fixed:weights=1++2", r"is '1\+\+2'; it must be numbers joined by \"\+\" or \"/\" or none"),
        ("rlw:distribution=uniform", "is 'uniform'; it must be normal or dirichlet"),
    ],
)
def test_parse_errors(text, message):
    with pytest.raises(ValueError, match=message):
        balancing.parse(text)


def test_a_method_of_an_outsider():
    def halved(*, factor: float = 0.5) -> balancing.Balancer:
        return balancing.fixed(weights=(factor, factor))

    assert balancing.register(halved) is halved
    try:
        np.testing.assert_allclose(weights("halved:factor=0.25", [1.0, 1.0]), [0.25, 0.25])
    finally:
        del balancing.BALANCERS["halved"]
    with pytest.raises(ValueError, match=r"unknown balancing method 'halved'; .*mtl_jax\.balancing\.register adds one"):
        balancing.parse("halved")


def test_a_name_is_given_once():
    def cagrad() -> balancing.Balancer:
        return balancing.fixed()

    with pytest.raises(ValueError, match="there is a balancing method 'cagrad' already"):
        balancing.register(cagrad)
    assert BALANCERS["cagrad"] is balancing.cagrad
