import jax.numpy as jnp
import numpy as np
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
