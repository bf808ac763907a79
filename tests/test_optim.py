import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtl_jax import optim


def test_poly_is_constant_inside_an_epoch():
    rate = optim.per_step(optim.poly(0.1, 10), steps_per_epoch=3, epochs=10)
    rates = [float(rate(jnp.asarray(step))) for step in (0, 2, 3, 29, 40)]
    last = 0.1 * 0.1**0.9
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.1 * 0.9**0.9, last, last], rtol=1e-5)


def test_adam_couples_the_weight_decay():
    tx = optim.make_optimizer("adam", 0.1, weight_decay=0.5)
    weight = jnp.array([2.0])
    updates, _ = tx.update(jnp.array([0.0]), tx.init(weight), weight)
    # The first step of Adam has length lr whatever the gradient: AdamW would move by lr * decay * weight instead.
    np.testing.assert_allclose(optax.apply_updates(weight, updates), [1.9], rtol=1e-6)


def test_sgd_with_momentum_by_hand():
    tx = optim.make_optimizer("sgd", 0.1, weight_decay=0.5, momentum=0.9)
    weight, state = jnp.array([2.0]), None
    state = tx.init(weight)
    velocity, expected = 0.0, 2.0
    for gradient in (1.0, 3.0):
        updates, state = tx.update(jnp.array([gradient]), state, weight)
        weight = optax.apply_updates(weight, updates)
        velocity = 0.9 * velocity + gradient + 0.5 * expected
        expected -= 0.1 * velocity
        np.testing.assert_allclose(weight, [expected], rtol=1e-6)


def test_unknown_optimiser():
    with pytest.raises(ValueError, match="unknown optimiser 'lion'; the optimisers are adam, sgd"):
        optim.make_optimizer("lion", 0.1)
