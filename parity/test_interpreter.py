"""The interpreter beside compiled functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parity import interpreter
from parity.interpreter import interpret


@pytest.fixture(autouse=True)
def _broadcasting():
    """The functions add arrays of different ranks, which other tests forbid."""
    with jax.numpy_rank_promotion("allow"):
        yield


X = np.random.default_rng(0).standard_normal((3, 4, 5))
Y = np.random.default_rng(1).standard_normal((4, 5))


@jax.custom_vjp
def _custom(x):
    return jnp.tanh(x)


_custom.defvjp(lambda x: (jnp.tanh(x), x), lambda x, g: (g * jnp.cos(x),))

FUNCTIONS = {
    "arithmetic": lambda x, y: (x + y - 2 * x * y) / (1 + y**2) + x**3 + jnp.square(y) - (-x),
    "bounds": lambda x, y: jnp.maximum(x, y) + jnp.minimum(x, 0.3) + jnp.abs(x),
    "exponents": lambda x, y: jnp.exp(x) + jnp.log(jnp.abs(y)) + jnp.log1p(y**2) + jnp.sqrt(x**2) + jax.lax.rsqrt(x**2),
    "comparisons": lambda x, y: jnp.stack([x > y, x >= y, x < y, x <= y, x == y, x != y, (x > 0) & (y > 0)]),
    "choice": lambda x, y: jnp.where(x > y, x, jnp.zeros_like(y)),
    "whole numbers": lambda x, y: (x > y).astype(jnp.int32).sum(-1) & 5,
    "reductions": lambda x, y: x.sum() + x.max((0, 1)) + x.mean(1) + y.sum(0),
    "shapes": lambda x, y: jnp.concatenate([x[:, ::2, 1:-1], jnp.flip(x, 1)[:, 1:3, :3]], 1).reshape(3, -1).T,
    "split": lambda x, y: jnp.split(x, (1, 3), axis=1),
    "squeezed": lambda x, y: x[:1].squeeze(0) + y[None, :, :, None].squeeze((0, 3)),
    "padding": lambda x, y: jax.lax.pad(x, 7.0, ((1, 2, 0), (-1, 0, 2), (0, -2, 1))),
    "cut to nothing": lambda x, y: jax.lax.pad(y, 7.0, ((-4, 0, 0), (0, 1, 0))),
    "product": lambda x, y: jnp.einsum("bhw,hk->wkb", x, y),
    "products of a batch": lambda x, y: jnp.einsum("bhw,chw,hk->hbck", x, x, y),
    "not in the table": lambda x, y: jax.lax.cumsum(x, 1) + jnp.sin(y),
    "loop": lambda x, y: jax.lax.scan(lambda total, row: (total + row, total), y, x),
    "own derivative": lambda x, y: jax.grad(lambda x: _custom(x).sum() + jax.nn.relu(x).sum())(x),
    "stopped derivative": lambda x, y: jax.grad(lambda x: (jax.lax.stop_gradient(x) * x).sum())(x),
    "infinite": lambda x, y: x / jnp.zeros_like(x) + jnp.sqrt(y),
    "constant": lambda x, y: (3.0, y, y),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_compiled(name, dtype):
    """The same values, shapes and dtypes."""
    with jax.enable_x64(dtype is np.float64):
        x, y = jnp.asarray(X, dtype), jnp.asarray(Y, dtype)
        want, got = jax.jit(FUNCTIONS[name])(x, y), interpret(FUNCTIONS[name])(x, y)
    assert jax.tree.structure(want) == jax.tree.structure(got)
    for a, b in zip(jax.tree.leaves(want), jax.tree.leaves(got), strict=True):
        assert (np.shape(a), a.dtype) == (np.shape(b), b.dtype)
        np.testing.assert_allclose(b, a, rtol=1e-5 if dtype is np.float32 else 1e-12)


def test_whole_numbers_are_not_divided():
    with pytest.raises(TypeError, match="divide"):
        interpret(lambda x: jax.lax.div(x, 2))(jnp.arange(3))


def test_one_trace_for_shapes(monkeypatch):
    """Arrays of NumPy and of jax with the same shapes share a trace; other shapes have their own."""
    traces = []

    def function(x):
        traces.append(x.shape)
        return x + 1

    run = interpret(function)
    for x in (np.zeros(3), jnp.zeros(3), np.float32([1, 2, 3]), np.float32([1])):
        run(np.asarray(x, np.float32) if isinstance(x, np.ndarray) else x)
    assert traces == [(3,), (1,)]


def test_every_rule_is_used():
    """`FUNCTIONS` covers the table."""
    used = set()

    def note(name, rule):
        return lambda *args, **params: used.add(name) or rule(*args, **params)

    rules = interpreter._RULES
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_RULES", {name: note(name, rule) for name, rule in rules.items()})
        for function in FUNCTIONS.values():
            interpret(function)(jnp.asarray(X, np.float32), jnp.asarray(Y, np.float32))
    assert used == rules.keys()
