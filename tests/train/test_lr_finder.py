"""The learning-rate range test."""

import json
import sys
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import experiment, folders, optim
from mtl_jax.reports import lr_plot
from mtl_jax.runtime import processes
from mtl_jax.train import configured_step, lr_finder
from mtl_jax.train.loop import fit
from mtl_jax.train.lr_finder import Losses, RangeTest, Sweep
from tests import scripts, tiny
from tests.train import runs

SWEEP = Sweep(1e-5, 1e-1, steps=14)


def test_rates_rise_by_one_factor():
    rates = [float(SWEEP.rate(step)) for step in range(SWEEP.steps)]
    np.testing.assert_allclose(rates, np.geomspace(1e-5, 1e-1, 14), rtol=1e-5)


@pytest.mark.parametrize(
    ("low", "high", "steps", "message"),
    [
        (0.0, 1.0, 100, "from 0 to 1; they must rise, and be positive and finite"),
        (1e-2, 1e-3, 100, "from 0.01 to 0.001; they must rise"),
        (1e-2, float("nan"), 100, "from 0.01 to nan"),
        (1e-7, 1.0, 12, "has 12 steps; the least is 13"),
    ],
)
def test_impossible_sweeps(low, high, steps, message):
    with pytest.raises(ValueError, match=message):
        Sweep(low, high, steps)


def test_the_suggestion_is_where_the_loss_falls_fastest():
    rates = np.geomspace(1e-7, 1, 100).tolist()
    falling = 3 - np.tanh((np.log10(rates) + 3) * 2)  # falls fastest at 1e-3
    noise = 0.05 * np.random.default_rng(0).standard_normal(100)
    smoothed = lr_finder.smooth(falling + noise, 100)
    assert lr_finder.suggest(rates, smoothed) == pytest.approx(1e-3, rel=0.5)
    np.testing.assert_allclose(smoothed, falling, atol=0.15)
    assert lr_finder.smooth(falling, 1) == pytest.approx(falling)  # the weights of other steps vanish


@pytest.mark.parametrize(
    ("losses", "diverged", "reason"),
    [
        (np.arange(100.0), False, "100 steps from 1e-07 to 1e-07; it never fell, so there is no suggestion"),
        (np.arange(12.0)[::-1], True, "12 steps from 1e-07 to 1e-07; a suggestion needs 13 steps"),
        ([1.0], True, "the loss diverged after 1 step from"),
        ([], True, "the loss of the first step is not finite before any learning rate counts"),
    ],
)
def test_no_suggestion(losses, diverged, reason):
    """The loss never falls, or the test has ended too early to tell."""
    assert lr_finder.suggest(np.geomspace(1e-7, 1, max(1, len(losses))).tolist(), losses) is None
    test = RangeTest([1e-7] * len(losses), list(losses), list(losses), None, diverged)
    assert reason in lr_finder.text(test, Sweep())


def test_a_loss_that_rises_to_four_times_the_least_one_diverges():
    losses = Losses()
    for _ in range(10):
        losses.add(1.0)
    assert not losses.diverged
    # The running mean of 10 ones and a value is 1 + weight * (value - 1).
    weight = 0.02 / (1 - 0.98**11)
    losses.add(1 + 2.99 / weight)
    assert not losses.diverged
    losses = Losses()
    for _ in range(10):
        losses.add(1.0)
    losses.add(1 + 3.01 / weight)
    assert losses.diverged


def diverged(values):
    """The number of losses after which the rule ends the test; None = it does not."""
    losses = Losses()
    for number, value in enumerate(values, start=1):
        losses.add(value)
        if losses.diverged:
            return number
    return None


def test_losses_that_are_negative_may_fall_and_wander():
    noise = np.random.default_rng(0).normal(0, 0.3, 100)
    assert diverged([-1.0, -1.1, -1.2, -0.5]) is None
    assert diverged(np.linspace(2, -3, 100) + noise) is None  # through zero, near which every rise is a large factor
    assert diverged(np.linspace(-1, -3, 100) + noise) is None
    # The least running mean is -1 of losses of the size 1: the test ends where the mean is above 2.
    weight = 0.02 / (1 - 0.98**11)
    assert diverged([-1.0] * 10 + [-1 + 2.99 / weight]) is None
    assert diverged([-1.0] * 10 + [-1 + 3.01 / weight]) == 11


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_diverges(loss):
    losses = Losses()
    losses.add(1.0)
    losses.add(loss)
    assert losses.diverged
    assert losses.values == [1.0]


def test_the_losses_are_those_of_a_training_at_these_rates(tmp_path, data_dir, monkeypatch):
    monkeypatch.setitem(optim.SCHEDULES, "sweep", lambda lr, length, **_: SWEEP.rate)
    config = tiny.config(data_dir, epochs=0, steps=SWEEP.steps, eval_every=SWEEP.steps)
    config.optim.schedule, config.optim.schedule_by = "sweep", "step"
    fit(config, tmp_path / "run")
    trained = [line for line in runs.lines(tmp_path / "run") if line["kind"] == "train"]

    config = tiny.config(data_dir)  # its own schedule does not count
    test = lr_finder.run(experiment.make(config), SWEEP, tmp_path / "finder")
    assert test.losses == [line["loss/total"] for line in trained]
    assert test.rates == pytest.approx([line["learning_rate"] for line in trained], rel=1e-6)
    assert len(set(test.losses)) == SWEEP.steps
    assert not test.diverged


@pytest.fixture
def objectives(monkeypatch):
    """Training steps that compute nothing and soon diverge; the list receives what they would minimise."""
    found = []

    def make(graphdef, objective, **options):
        found.append(objective)
        losses = iter([2.0, 2.0, 1000.0])
        return lambda arrays, *others: (arrays, {"loss/total": jnp.float32(next(losses))})

    monkeypatch.setattr(configured_step, "make_train_step", make)
    return found


@pytest.mark.usefixtures("objectives")
def test_the_test_ends_where_the_loss_diverges(tmp_path, data_dir):
    test = lr_finder.run(experiment.make(tiny.config(data_dir)), SWEEP, tmp_path)
    assert test.losses == [2.0, 2.0, 1000.0]
    assert test.diverged
    assert test.suggestion is None
    assert lr_finder.text(test, SWEEP).startswith("the loss diverged after 3 steps from 1e-05 to ")


@pytest.mark.parametrize("weights", ["measured", "file"])
def test_losses_are_measured_as_in_training(tmp_path, data_dir, objectives, weights):
    file = tmp_path / "weights.txt"
    file.write_text(" ".join(map(str, range(1, 41))))
    config = tiny.config(data_dir)
    given = {"measured": "ce:class_weights=measured", "file": f"ce:class_weights={file}"}
    config = replace(config, data=replace(config.data, tasks=("semseg",)), losses={"semseg": given[weights]})
    lr_finder.run(experiment.make(config), SWEEP, tmp_path / "new" / "run")
    ((loss),) = [objective.losses["semseg"] for objective in objectives]
    numbers = [float(number) for number in loss.removeprefix("ce:class_weights=").split("/")]
    assert len(numbers) == 40
    if weights == "file":
        assert numbers == list(range(1, 41))


def test_a_work_directory_with_checkpoints_is_refused_before_any_data_is_read(tmp_path, data_dir):
    (tmp_path / folders.CHECKPOINTS / "6").mkdir(parents=True)
    run = experiment.make(tiny.config(data_dir / "nowhere"))
    with pytest.raises(ValueError, match=rf"{tmp_path} holds a run with checkpoints, .* by another --workdir"):
        lr_finder.run(run, SWEEP, tmp_path)


@pytest.mark.usefixtures("objectives")
def test_processes_must_agree(tmp_path, data_dir, monkeypatch):
    """On the same facts as in training, and on the range."""
    told = {}
    monkeypatch.setattr(processes, "check_agreement", lambda what, facts: told.update({what: facts}))
    config = tiny.config(data_dir, epochs=1)
    lr_finder.run(experiment.make(config), SWEEP, tmp_path / "finder")
    found, train_data = dict(told), told["the data"]["train"]
    told.clear()
    fit(config, tmp_path / "run")
    assert found.pop("the range test") == {"low": 1e-5, "high": 1e-1, "steps": 14}
    assert found.pop("the data") == {"train": train_data}
    assert told.pop("the data")["train"] == train_data
    assert found == told
    assert set(found) == {"the configuration", "the packages"}


def command(workdir, data_dir, *options):
    recipe = f"--config={runs.ROOT / 'tests/train/tiny_run.py'}:{data_dir}"
    return scripts.run("train", recipe, "--find_lr", f"--workdir={workdir}", *options)


def test_the_command_writes_numbers_and_a_picture_and_nothing_else(tmp_path, data_dir):
    workdir = tmp_path / "run"
    process = command(workdir, data_dir, "--find_lr_steps=14", "--find_lr_min=1e-5", "--find_lr_max=0.1")
    assert process.returncode == 0, process.stderr
    assert sorted(path.name for path in workdir.iterdir()) == ["lr_finder.json", "lr_finder.png"]
    test = RangeTest(**json.loads((workdir / "lr_finder.json").read_text()))
    assert len(test.rates) == len(test.losses) == len(test.smoothed) == 14
    assert (test.rates[0], test.rates[-1]) == pytest.approx((1e-5, 0.1))
    assert f"suggested learning rate: {test.suggestion:.2e}   (--optim.lr={test.suggestion:.2e})" in process.stdout
    assert f"the curve is in {workdir / 'lr_finder.png'}" in process.stdout
    assert (workdir / "lr_finder.png").read_bytes().startswith(b"\x89PNG")


def test_a_missing_plotting_package_is_told_of_before_anything_is_trained(tmp_path, data_dir, monkeypatch):
    for name in ("lr_plot", "figures"):
        monkeypatch.delitem(sys.modules, f"mtl_jax.reports.{name}")
        monkeypatch.delattr(f"mtl_jax.reports.{name}")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(lr_finder, "run", lambda *args: pytest.fail("it trains first"))
    process = command(tmp_path / "run", data_dir)
    assert process.returncode == 1
    assert "--find_lr draws a plot, which needs matplotlib; install the extra: pip install" in process.stderr


@pytest.mark.parametrize("losses", [[], [2.0], [2.0, 3.0]])
def test_the_picture_of_a_test_that_ends_at_once(tmp_path, losses):
    test = RangeTest([1e-5, 1e-4][: len(losses)], losses, losses, None, True)
    assert lr_plot.draw(test, "title", tmp_path).stat().st_size > 1000
