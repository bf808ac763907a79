import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtl_jax import optim


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
