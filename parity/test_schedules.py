"""Learning rates against those recorded from the reference, and against torch's schedulers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import experiment
from mtl_jax.config import Config, Data, Optim
from parity import golden

ROUNDING = 1e-14  # float64, a few operations
STEPS_PER_EPOCH = 7

RECORDED = {
    name: rates
    for name, rates in json.loads((golden.ROOT / "schedules.json").read_text(encoding="utf-8")).items()
    if not name.startswith("_")
}


def configured(optim, **train):
    """The experiment with these options of the optimiser and this length."""
    config = Config(Data("nyud", ("depth",)), optim=optim)
    for name, value in train.items():
        setattr(config.train, name, value)
    return experiment.make(config)


def rates_of_steps(run, steps, steps_per_epoch=STEPS_PER_EPOCH):
    """The learning rates of the first steps of a run, in float64."""
    with jax.enable_x64(True):
        rate = jax.jit(jax.vmap(run.learning_rate(steps_per_epoch)))
        rates = np.asarray(rate(jnp.arange(steps)))
    assert rates.dtype == np.float64
    return rates


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_rates(name):
    kind, *settings = name.split("_")
    optim = Optim(schedule=kind, lr=float(settings[0].removeprefix("lr")))
    if kind == "step":
        assert settings[1:4] == ["decay30", "60", "rate0.1"]
        optim.decay_epochs, optim.decay_rate = (30, 60), 0.1
    epochs = int(settings[-1].removeprefix("epochs"))
    assert len(RECORDED[name]) == epochs
    rates = rates_of_steps(configured(optim, epochs=epochs), epochs * STEPS_PER_EPOCH)
    np.testing.assert_allclose(rates, np.repeat(RECORDED[name], STEPS_PER_EPOCH), rtol=ROUNDING)


TOTAL, WARMUP, LR, LEAST, START = 60, 12, 0.5, 0.01, 0.1


def of_torch(torch, make, *, warmup):
    """The learning rates of torch's scheduler, after a warm-up where asked."""
    optimizer = torch.optim.SGD([torch.zeros(1, dtype=torch.float64, requires_grad=True)], lr=LR)
    schedulers = torch.optim.lr_scheduler
    scheduler = make(schedulers, optimizer)
    if warmup:
        rising = schedulers.LinearLR(optimizer, START, 1.0, total_iters=WARMUP)
        scheduler = schedulers.SequentialLR(optimizer, [rising, scheduler], milestones=[WARMUP])
    rates = []
    for _ in range(TOTAL):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


# torch counts the decays of a schedule after a warm-up from its own beginning; here they count from that of the run.
@pytest.mark.parametrize("warmup", [0, WARMUP])
@pytest.mark.parametrize(
    ("optim", "make"),
    [
        (
            Optim(schedule="poly", poly_power=0.9),
            lambda schedulers, optimizer, length, begin: schedulers.PolynomialLR(optimizer, length, 0.9),
        ),
        (
            Optim(schedule="poly", poly_power=1.0),
            lambda schedulers, optimizer, length, begin: schedulers.LinearLR(optimizer, 1.0, 0.0, length),
        ),
        (
            Optim(schedule="cosine", min_lr=LEAST),
            lambda schedulers, optimizer, length, begin: schedulers.CosineAnnealingLR(optimizer, length, LEAST),
        ),
        (
            Optim(schedule="step", decay_steps=(20, 45), decay_rate=0.3),
            lambda schedulers, optimizer, length, begin: schedulers.MultiStepLR(
                optimizer, [20 - begin, 45 - begin], 0.3
            ),
        ),
        (
            Optim(schedule="constant"),
            lambda schedulers, optimizer, length, begin: schedulers.ConstantLR(optimizer, 1.0),
        ),
    ],
    ids=["poly", "linear", "cosine", "step", "constant"],
)
def test_rates_by_step_beside_torch(torch, optim, make, warmup):
    optim.lr, optim.schedule_by, optim.warmup_steps, optim.warmup_start = LR, "step", warmup, START
    rates = rates_of_steps(configured(optim, epochs=0, steps=TOTAL), TOTAL)
    expected = of_torch(torch, lambda *parts: make(*parts, TOTAL - warmup, warmup), warmup=warmup)
    # torch computes a rate from the one before, so that its errors grow.
    np.testing.assert_allclose(rates, expected, rtol=1e-11)
