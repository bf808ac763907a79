import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtl_jax import experiment, optim
from mtl_jax.config import Config, Data, Optim, Train


def test_poly_is_constant_inside_an_epoch():
    rate = optim.over_steps(optim.poly(0.1, 10), unit=3, length=10)
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
    assert rate("step", 9, decays=(3, 8), decay_rate=0.2) == pytest.approx(0.1 * 0.2**2)
    with pytest.raises(ValueError, match="unknown schedule 'cosin'; the schedules are poly, cosine, step, constant"):
        optim.make_schedule("cosin", 0.1, 10)


def in_float64(schedule, positions):
    with jax.enable_x64(True):
        rates = np.asarray(jax.vmap(schedule)(jnp.asarray(positions)))
    assert rates.dtype == np.float64
    return rates


def test_cosine_falls_to_the_least_rate():
    positions = np.arange(50)
    expected = 0.01 + (0.5 - 0.01) * (1 + np.cos(np.pi * positions / 50)) / 2
    schedule = optim.make_schedule("cosine", 0.5, 50, min_lr=0.01)
    np.testing.assert_allclose(in_float64(schedule, positions), expected, rtol=1e-14)
    with jax.enable_x64(True):
        beside = optax.cosine_decay_schedule(0.5, 50, alpha=0.01 / 0.5)
        np.testing.assert_allclose(jax.vmap(beside)(jnp.asarray(positions)), expected, rtol=1e-14)


def test_poly_has_a_power_and_a_least_rate():
    positions = np.arange(8)
    schedule = optim.make_schedule("poly", 0.5, 8, min_lr=0.1, power=2.0)
    expected = 0.1 + 0.4 * (1 - positions / 8) ** 2
    np.testing.assert_allclose(in_float64(schedule, positions), expected, rtol=1e-14)


def test_the_rate_of_a_warmup_rises_to_that_of_the_schedule():
    steps = np.arange(14)
    after = optim.over_steps(optim.poly(0.5, 10, 1.0), unit=1, length=10, begin=4)
    rates = in_float64(optim.with_warmup(after, 4, 0.2), steps)
    rising = 0.5 * np.array([0.2, 0.4, 0.6, 0.8])
    falling = 0.5 * (1 - np.arange(10) / 10)
    np.testing.assert_allclose(rates, [*rising, *falling], rtol=1e-14)
    assert optim.with_warmup(after, 0, 0.2) is after


def rates(config_optim, number, steps_per_epoch=3, **train):
    """The learning rates of the first steps of a run."""
    config = Config(Data("nyud", ("depth",)), optim=config_optim, train=Train(**train))
    schedule = experiment.make(config).learning_rate(steps_per_epoch)
    return in_float64(schedule, np.arange(number))


def test_published_schedules_keep_every_bit():
    """The rate of the published experiments, in float32 as training computes it."""
    config = Config(Data("nyud", ("depth",)), optim=Optim(lr=1e-4), train=Train(epochs=60))
    schedule = jax.jit(experiment.make(config).learning_rate(99))
    published = jax.jit(lambda step: 1e-4 * (1 - jnp.minimum(step // 99, 59) / 60) ** 0.9)
    for step in (0, 98, 99, 1234, 5939, 7000):
        assert float(schedule(jnp.int32(step))) == float(published(jnp.int32(step)))


def test_a_run_that_ends_within_an_epoch_has_a_rate_above_0_to_its_end():
    by_epoch = rates(Optim(lr=1.0, poly_power=1.0), 8, epochs=0, steps=8)  # the third epoch is not complete
    np.testing.assert_allclose(by_epoch, np.repeat([1, 2 / 3, 1 / 3], 3)[:8])
    by_step = rates(Optim(lr=1.0, poly_power=1.0, schedule_by="step"), 8, epochs=0, steps=8)
    np.testing.assert_allclose(by_step, 1 - np.arange(8) / 8)


def test_by_epochs_the_schedule_begins_with_the_epoch_in_which_the_warmup_ends():
    whole = rates(Optim(lr=1.0, poly_power=1.0, warmup_epochs=1, warmup_start=0.0), 9, epochs=3)
    np.testing.assert_allclose(whole, [0, 1 / 3, 2 / 3, 1, 1, 1, 0.5, 0.5, 0.5])
    part = rates(Optim(lr=1.0, poly_power=1.0, warmup_steps=4, warmup_start=0.0), 9, epochs=3)
    np.testing.assert_allclose(part, [0, 0.25, 0.5, 0.75, 1, 1, 0.5, 0.5, 0.5])


def test_decays_count_from_the_beginning_of_the_run():
    by_epoch = Optim(lr=1.0, schedule="step", decay_epochs=(1,), warmup_epochs=1, warmup_start=1.0)
    np.testing.assert_allclose(rates(by_epoch, 9, epochs=3), [1] * 6 + [0.1] * 3)
    by_step = Optim(
        lr=1.0, schedule="step", schedule_by="step", decay_steps=(5,), warmup_steps=2, warmup_start=1.0, min_lr=0.5
    )
    np.testing.assert_allclose(rates(by_step, 9, epochs=3), [1] * 5 + [0.5 + 0.5 * 0.1] * 4)
    by_step.decay_steps = (3,)  # the least one
    np.testing.assert_allclose(rates(by_step, 5, epochs=3), [1] * 3 + [0.5 + 0.5 * 0.1] * 2)


@pytest.mark.parametrize(
    ("optimizer", "train", "message"),
    [
        (Optim(schedule="step", schedule_by="step"), {}, r"optim.decay_steps is empty; name steps, .*\(20000, 30000\)"),
        (Optim(decay_steps=(5,)), {}, "decay_steps needs schedule='step' and schedule_by='step'"),
        (Optim(min_lr=1e-3), {}, "optim.min_lr is 0.001 and optim.lr 0.0001; min_lr must be below lr"),
        (Optim(schedule="constant", min_lr=1e-5), {}, "'constant', which does not fall; set min_lr to 0"),
        (Optim(warmup_start=2.0), {}, "optim.warmup_start is 2.0; the most is 1"),
        (Optim(decay_rate=1.5), {}, "optim.decay_rate is 1.5; the most is 1"),
        (Optim(decay_rate=0.0), {}, "optim.decay_rate is 0.0; it must be positive"),
        (Optim(schedule="step", decay_epochs=(30, -1)), {}, r"optim.decay_epochs is \(30, -1\); the least is 0"),
        (Optim(schedule="step", schedule_by="step", decay_steps=[0]), {}, r"decay_steps is \[0\]; the least is 1"),
        (
            Optim(schedule="step", decay_epochs=(2, 60), warmup_epochs=3),
            {},
            r"optim.decay_epochs is \(2, 60\) and optim.warmup_epochs 3; a decay within the warm-up would lower all of "
            "it, so the least of optim.decay_epochs is 3",
        ),
        (
            Optim(schedule="step", schedule_by="step", decay_steps=(1500,), warmup_steps=1500),
            {},
            r"optim.decay_steps is \(1500,\) and optim.warmup_steps 1500; .* least of optim.decay_steps is 1501",
        ),
        (
            Optim(warmup_steps=10, warmup_epochs=1),
            {},
            "optim.warmup_epochs is 1 and optim.warmup_steps 10; give one of the two, and set the other to 0",
        ),
        (
            Optim(warmup_steps=10),
            {"epochs": 0, "steps": 10},
            "optim.warmup_steps is 10 and train.steps 10; the warm-up must end before the run does",
        ),
        (Optim(warmup_epochs=3), {"epochs": 3}, "optim.warmup_epochs is 3 and train.epochs 3; the warm-up must end"),
        (Optim(schedule_by="image"), {}, "optim.schedule_by is 'image'; it may be 'epoch' or 'step'"),
        (Optim(), {"steps": 7}, "train.epochs is 100 and train.steps 7; give one of the two, and set the other to 0"),
        (Optim(), {"epochs": 0}, "train.epochs and train.steps are both 0; the length of the run is one of them"),
    ],
)
def test_options_that_contradict_each_other(optimizer, train, message):
    with pytest.raises(ValueError, match=message):
        experiment.make(Config(Data("nyud", ("depth",)), optim=optimizer, train=Train(**train)))
