import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.nn import isolate


@isolate.isolated
def product(x, y):
    return jnp.pad(jnp.tanh(x), 1)[1:-1, 1:-1] @ y  # `jnp.pad` is jitted itself


def loss(x, y):
    return jnp.square(product(product(x, y) + 1, y)).sum()


X, Y = (jax.random.normal(jax.random.key(seed), (4, 4)) for seed in (0, 1))


def compiled(function):
    return jax.jit(jax.grad(function)).lower(X, Y).compile().as_text()


def test_calls_remain_in_the_compiled_program_and_in_its_gradient():
    """Two forward, two backward, and none inside them; XLA inlines every call that does not forbid it."""
    assert compiled(loss).count(" call(") == 4
    with isolate.fused():
        assert compiled(lambda x, y: loss(x, y)).count(" call(") == 0
    assert compiled(loss).count(" call(") == 4


def test_other_devices_decide_for_themselves(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "inlineable" not in jax.jit(lambda x, y: loss(x, y)).lower(X, Y).as_text()


def test_numbers_stay():
    def plain(x, y):
        return jnp.square(jnp.tanh(jnp.tanh(x) @ y + 1) @ y).sum()

    for argument in (0, 1):
        np.testing.assert_allclose(jax.grad(loss, argument)(X, Y), jax.grad(plain, argument)(X, Y), rtol=1e-5)


def test_static_arguments():
    power = isolate.isolated(lambda x, n: x**n, static_argnums=(1,))
    np.testing.assert_allclose(power(jnp.full(3, 2.0), 3), 8)
