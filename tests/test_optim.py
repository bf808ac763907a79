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


def test_step_decays_after_its_epochs():
    schedule = optim.step(0.1, (60, 30), rate=0.5)
    rates = {epoch: float(schedule(jnp.asarray(epoch))) for epoch in (0, 29, 30, 31, 60, 61, 99)}
    expected = {0: 0.1, 29: 0.1, 30: 0.1, 31: 0.05, 60: 0.05, 61: 0.025, 99: 0.025}  # epoch 31 is the first below
    assert rates == pytest.approx(expected, rel=1e-6)
    assert float(optim.step(0.1, ())(jnp.asarray(99))) == pytest.approx(0.1)


def test_schedules_by_name():
    def rate(name, epoch, **options):
        return float(optim.make_schedule(name, 0.1, 10, **options)(jnp.asarray(epoch)))

    assert rate("poly", 9) == pytest.approx(0.1 * 0.1**0.9)
    assert rate("constant", 9) == pytest.approx(0.1)
    assert rate("step", 9, decay_epochs=(3, 8), decay_rate=0.2) == pytest.approx(0.1 * 0.2**2)
    with pytest.raises(ValueError, match="unknown schedule 'cosine'; the schedules are poly, step, constant"):
        optim.make_schedule("cosine", 0.1, 10)


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


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_multipliers_scale_the_updates_of_a_submodule(name):
    rng = np.random.default_rng(0)

    def tree():
        return {
            "nddr": {"conv": jnp.asarray(rng.standard_normal(3), jnp.float32)},
            "backbone": {"nddr": jnp.asarray(rng.standard_normal(2), jnp.float32)},  # the name counts at the top alone
        }

    weights, gradients = tree(), [tree() for _ in range(3)]

    def updates(multipliers):
        """The same weights at every step, so that only the state connects the steps."""
        tx = optim.make_optimizer(name, optim.poly(0.1, 10), weight_decay=0.01, multipliers=multipliers)
        state, found = tx.init(weights), []
        for gradient in gradients:
            update, state = tx.update(gradient, state, weights)
            found.append(update)
        return found

    for scaled, plain in zip(updates({"nddr": 100.0, "cross_stitch": 7.0}), updates(None), strict=True):
        assert jnp.abs(plain["nddr"]["conv"]).min() > 0
        np.testing.assert_array_equal(scaled["nddr"]["conv"], 100 * plain["nddr"]["conv"])
        np.testing.assert_array_equal(scaled["backbone"]["nddr"], plain["backbone"]["nddr"])
