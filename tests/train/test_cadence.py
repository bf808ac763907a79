"""When a run saves and evaluates, and how its length is told."""

import pytest

from mtl_jax import experiment
from mtl_jax.config import Config, Data, Optim, Train
from mtl_jax.train import cadence
from mtl_jax.train.cadence import Cadence


def steps(cadence, due):
    return [step for step in range(1, cadence.total_steps + 1) if getattr(cadence, due)(step)]


@pytest.mark.parametrize(
    ("last", "evaluated", "text"),
    [
        (0, [3, 6, 9, 12], "every epoch"),
        (1, [12], "the last epoch"),
        (2, [9, 12], "each of the last 2 epochs"),
        (10, [3, 6, 9, 12], "every epoch"),
    ],
)
def test_the_last_epochs_are_evaluated_as_published(last, evaluated, text):
    when = Cadence(3, 12, eval_final_epochs=last)
    assert steps(when, "evaluates") == evaluated
    assert when.evaluated == text
    assert steps(when, "saves") == [3, 6, 9, 12]
    assert when.length == "12: 4 epochs of 3 steps"


@pytest.mark.parametrize(
    ("every", "evaluated", "text"),
    [
        (4, [4, 8, 11], "every 4 steps and the last one"),
        (11, [11], "the last step"),
        (40, [11], "the last step"),
        (1, list(range(1, 12)), "every step"),
    ],
)
def test_evaluations_every_some_steps_and_at_the_end(every, evaluated, text):
    when = Cadence(3, 11, eval_every=every, eval_final_epochs=1)
    assert steps(when, "evaluates") == evaluated
    assert when.evaluated == text
    assert steps(when, "saves") == sorted({3, 6, 9, 11, *evaluated})  # what is evaluated was saved before


def test_a_run_may_end_within_an_epoch():
    when = Cadence(3, 8, eval_final_epochs=2, checkpoint_every=5)
    assert when.epochs == 3
    assert steps(when, "evaluates") == [6, 8]
    assert steps(when, "saves") == [3, 5, 6, 8]
    assert when.length == "8: 2.7 epochs of 3 steps"
    assert Cadence(1, 1).length == "1: 1 epoch of 1 step"


def test_nothing_is_due_before_the_first_step():
    for when in (Cadence(3, 8, eval_every=4), Cadence(3, 8)):
        assert not when.evaluates(0)
        assert not when.ends_epoch(0)


def test_every_step_is_logged_that_the_log_asks_for():
    assert steps(Cadence(3, 6, log_every=2), "logs") == [2, 4, 6]


def of(images, optim=None, **train):
    config = Config(Data("nyud", ("depth",)), optim=optim or Optim(), train=Train(batch_size=4, **train))
    return cadence.of_run(experiment.make(config), images)


def test_the_length_of_a_configuration():
    assert of(14, epochs=5).total_steps == 15
    assert of(14, epochs=0, steps=5).total_steps == 5


def test_a_warmup_that_takes_the_whole_run():
    """By epochs it is known once the number of images is."""
    assert of(14, Optim(warmup_steps=5), epochs=2).total_steps == 6
    with pytest.raises(ValueError, match=r"the warm-up takes 6 steps .*, the run 6, which are 2 epochs of 3 steps"):
        of(14, Optim(warmup_steps=6), epochs=2)
    with pytest.raises(ValueError, match=r"the warm-up takes 6 steps .*, the run 5, which are 1.66667 epochs"):
        of(14, Optim(warmup_epochs=2), epochs=0, steps=5)


def test_a_decay_within_the_warmup():
    """A warm-up in the other unit is compared once the number of images is known: three steps are an epoch."""
    with pytest.raises(ValueError, match=r"decay_epochs is \(1, 4\) and optim.warmup_steps 7; .*decay_epochs is 2"):
        of(14, Optim(schedule="step", decay_epochs=(1, 4), warmup_steps=7), epochs=9)
    assert of(14, Optim(schedule="step", decay_epochs=(2, 4), warmup_steps=7), epochs=9)
    by_step = {"schedule": "step", "schedule_by": "step", "warmup_epochs": 2}
    with pytest.raises(ValueError, match=r"decay_steps is \(6,\) and optim.warmup_epochs 2; .*decay_steps is 7"):
        of(14, Optim(decay_steps=(6,), **by_step), epochs=9)
    assert of(14, Optim(decay_steps=(7,), **by_step), epochs=9)
    assert of(14, Optim(decay_epochs=(1, 4), warmup_steps=7), epochs=9)  # poly does not read them


@pytest.mark.parametrize(
    ("train", "most"),
    [
        ({"epochs": 20}, 8),
        ({"epochs": 7}, 5),
        ({"epochs": 20, "eval_final_epochs": 0}, 18),
        ({"epochs": 20, "eval_every": 6}, 8),
        ({"epochs": 0, "steps": 20, "eval_every": 6}, 2),
        ({"epochs": 0, "steps": 20}, 5),
        ({"epochs": 0, "steps": 20, "eval_final_epochs": 4}, 2),
    ],
)
def test_a_patience_that_never_ends_the_run(train, most):
    """Some need the number of images; three steps are an epoch."""
    when = of(14, patience=most, **train)
    assert len(steps(when, "evaluates")) == most + 2
    with pytest.raises(ValueError, match=rf"patience is {most + 1} and the run has at most {most + 2} evaluations, .*"):
        of(14, patience=most + 1, **train)


def test_a_run_with_two_evaluations_never_ends_early():
    with pytest.raises(ValueError, match=r"evaluate more often .*, or set train\.patience to 0"):
        of(14, patience=1, epochs=2)
    assert of(14, patience=0, epochs=2)
