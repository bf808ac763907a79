"""Batches in parts are balanced as whole batches are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import balancing
from mtl_jax.balancing import BALANCERS
from tests.marks import slow

TASKS = ("near", "far", "flat")
GOALS = {"near": 0.0, "far": 1.0, "flat": 2.0}
# One of each kind: weights that depend on nothing, on former losses, on the losses of the batch, on the losses before
# and after the step; and gradients as inner products, with weights for the heads, and as such, with a memory of them.
QUICK = ("fixed", "dwa", "geometric", "famo", "cagrad", "gradnorm", "db_mtl")
METHODS = [name for name in BALANCERS if not BALANCERS[name]().features]


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def losses(shared, specific, x, weights):
    """Weighted sums over the samples; what they see goes through a shared map."""
    features = jnp.tanh(x @ shared["w"] + shared["b"][None])
    return {task: jnp.sum(weights * (features @ specific[task] - GOALS[task]) ** 2) for task in TASKS}


def batch():
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.standard_normal((6, 2))), jnp.full(6, 1 / 6)


def whole(shared, specific, x, weights):
    return losses(shared, specific, x, weights), x.sum()


def in_part(shared, specific, carry, part):
    """The carry counts the parts, whose sums are aux."""
    return losses(shared, specific, *part), (carry + 1, part[0].sum())


def parameters():
    rng = np.random.default_rng(1)
    shared = {"w": jnp.asarray(rng.standard_normal((2, 4))), "b": jnp.full(4, 0.1)}
    return shared, {task: jnp.asarray(rng.standard_normal(4)) for task in TASKS}


def steps(balancer, compute, *arguments):
    """Results of three steps of gradient descent, in which the method also sees the losses after each step."""
    shared, specific = parameters()
    state, results = balancer.init(len(TASKS), shared), []

    @jax.jit
    def step(state, key, shared, specific):
        found = compute(state, key, shared, specific, *arguments)
        gradients = found.shared, found.specific
        shared, specific = jax.tree.map(lambda x, gradient: x - 0.1 * gradient, (shared, specific), gradients)
        after = losses(shared, specific, *batch())
        state = balancing.observe(balancer, TASKS, found.state, found.losses, lambda: after)
        return found, state, shared, specific

    for number in range(3):
        found, state, shared, specific = step(state, jax.random.key(number), shared, specific)
        results.append((found, state))
    return results


def in_parts(number):
    return tuple(x.reshape(number, -1, *x.shape[1:]) for x in batch())


@pytest.mark.parametrize("name", [name if name in QUICK else slow(name) for name in METHODS])
def test_parts_give_the_step_of_the_whole_batch(name):
    balancer = BALANCERS[name]()
    expected = steps(balancer, balancing.value_and_grad(whole, balancer, TASKS), *batch())
    compute = balancing.accumulated_value_and_grad(in_part, balancer, TASKS)
    found = steps(balancer, compute, jnp.zeros(()), in_parts(3))
    for (one, one_state), (other, other_state) in zip(found, expected, strict=True):
        assert float(one.aux[0]) == 3
        pairs = [
            (x._replace(aux=aux), state)
            for x, aux, state in ((one, one.aux[1], one_state), (other, other.aux, other_state))
        ]
        assert jax.tree.structure(pairs[0]) == jax.tree.structure(pairs[1])
        # Solvers iterate, and repeat a rounding error of 1e-16.
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12), *pairs)
    assert not np.allclose(found[0][0].shared["w"], found[1][0].shared["w"])


def test_losses_are_computed_first_only_where_weights_depend_on_them():
    def loops(name):
        balancer = BALANCERS[name]()
        compute = balancing.accumulated_value_and_grad(in_part, balancer, TASKS)
        shared, specific = parameters()
        arguments = balancer.init(3, shared), jax.random.key(0), shared, specific, jnp.zeros(()), in_parts(3)
        compiled = jax.jit(compute).lower(*arguments).compile()
        return compiled.as_text().count(" while(")

    assert [loops(name) for name in ("fixed", "uncertainty", "geometric")] == [1, 1, 2]


def test_methods_of_features_are_refused():
    with pytest.raises(ValueError, match="a batch in parts does not keep its features"):
        balancing.accumulated_value_and_grad(in_part, balancing.mgda_ub(), TASKS)
