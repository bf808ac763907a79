"""Runs whose length is given in steps, that are evaluated every some steps, and that end early."""

import logging
import re

import jax
import numpy as np
import pytest

from mtl_jax.evaluation import scoring
from mtl_jax.train.checkpoint import Checkpoints
from mtl_jax.train.loop import fit
from tests import tiny
from tests.marks import slow
from tests.train import runs

# 12 training images in batches of 4: three steps an epoch.


def by_steps(data_dir, **train):
    """A run of 5 steps, evaluated after every second one and the last one, with a schedule by steps."""
    config = tiny.config(data_dir, **({"epochs": 0, "steps": 5, "eval_every": 2} | train))
    config.optim.schedule, config.optim.schedule_by, config.optim.warmup_steps = "cosine", "step", 2
    return config


def evaluations(workdir):
    return [line["step"] for line in runs.lines(workdir) if line["kind"] == "eval"]


@pytest.fixture(scope="module")
def straight(tmp_path_factory, data_dir):
    """(work directory, messages) of a run by steps without interruption."""
    workdir = tmp_path_factory.mktemp("straight") / "run"
    with pytest.MonkeyPatch.context() as patch, runs.messages() as messages:
        tiny.register_backbones(patch)
        fit(by_steps(data_dir, best="depth/abs_rel"), workdir)
    return workdir, messages


def test_a_run_by_steps_ends_within_an_epoch(straight):
    workdir, messages = straight
    assert evaluations(workdir) == [2, 4, 5]
    train = [line for line in runs.lines(workdir) if line["kind"] == "train"]
    assert [line["step"] for line in train] == [1, 2, 3, 4, 5]
    assert train[-1]["epoch"] == pytest.approx(5 / 3)
    cosine = [1, (1 + np.cos(np.pi / 3)) / 2, (1 + np.cos(2 * np.pi / 3)) / 2]
    rates = [1e-3 * 1e-6, 1e-3 * (0.5 + 0.5e-6), *(1e-3 * factor for factor in cosine)]
    assert [line["learning_rate"] for line in train] == pytest.approx(rates, rel=1e-5)
    banner = [" ".join(line.split()) for line in messages[0].splitlines()]
    assert "optimiser adam, learning rate 0.001 (cosine by steps after 2 steps of warm-up)" in banner
    assert "steps 5: 1.7 epochs of 3 steps" in banner
    assert "evaluation after every 2 steps and the last one, by the protocol survey" in banner
    assert "checkpoints ranked by depth/abs_rel" in banner
    assert any(message.startswith("step 5/5, epoch 2/2, loss ") for message in messages)


def test_the_chosen_score_ranks_the_checkpoints(straight):
    workdir, messages = straight
    logged = {line["step"]: line["depth/abs_rel"] for line in runs.lines(workdir) if line["kind"] == "eval"}
    checkpoints = Checkpoints(workdir, read_only=True)
    assert checkpoints.best() == min(logged, key=logged.__getitem__)
    assert checkpoints.evaluation(5).score == -logged[5]  # lower is better
    first = next(message for message in messages if message.startswith("evaluation of step 2 "))
    assert f"checkpoints are ranked by depth/abs_rel {logged[2]:.4f}  * best checkpoint so far" in first


@pytest.mark.parametrize("killed_at", [3, slow(1), slow(4)])
def test_an_interrupted_run_by_steps_ends_bit_identical(tmp_path, data_dir, straight, killed_at):
    config = by_steps(data_dir, best="depth/abs_rel")
    runs.fit_and_kill(config, tmp_path, killed_at)
    fit(config, tmp_path)
    (step, expected, before), (other, resumed, after) = (runs.arrays(path) for path in (straight[0], tmp_path))
    assert step == other == 5
    assert before == after
    assert [step for step, _ in after["scores"]] == [2, 4]  # that of the newest step stands beside it
    jax.tree.map(np.testing.assert_array_equal, expected, resumed)
    assert runs.log(straight[0]) == runs.log(tmp_path)


def scored(monkeypatch, scores):
    """Gives the evaluations these scores."""
    remaining = iter(scores)
    monkeypatch.setattr(scoring, "score", lambda *args: next(remaining))


def test_a_run_ends_early_without_a_better_score(tmp_path, data_dir, monkeypatch, caplog):
    config = by_steps(data_dir, steps=9, eval_every=1, patience=3, keep=2)
    scored(monkeypatch, [None, 0.7, 0.6, None, 0.7])
    with caplog.at_level(logging.INFO):
        assert fit(config, tmp_path)["depth"]
    assert evaluations(tmp_path) == [1, 2, 3, 4, 5]
    assert "the 2 best ones are kept; training ends after 3 evaluations without a better one" in caplog.text
    counts = re.findall(r"evaluations without a better score: (\d) of 3, after which training ends early", caplog.text)
    assert counts == ["0", "0", "1", "2", "3"]
    assert "training has ended at step 5: 5 steps in " in caplog.text
    assert "It ends early because of train.patience=3" in caplog.text
    checkpoints = Checkpoints(tmp_path, read_only=True)
    assert checkpoints.ranking()[0] in (2, 5)  # as good as each other
    # The same command finds that nothing is left, and one with more patience goes on.
    assert fit(config, tmp_path) == {}
    config.train.patience = 4
    with pytest.raises(ValueError, match=r"train\.patience: 3 there, 4 now"):
        fit(config, tmp_path)
    scored(monkeypatch, [0.6])
    fit(config, tmp_path, allow_config_change=True)
    assert evaluations(tmp_path) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("killed_at", [3, slow(4)])
def test_an_interrupted_run_ends_early_at_the_same_step(tmp_path, data_dir, monkeypatch, killed_at):
    """The number of evaluations comes from the checkpoint: those that held the scores are deleted by then."""
    config = by_steps(data_dir, steps=9, eval_every=1, patience=4)
    scores = [0.7, 0.6, 0.5, 0.6, 0.4]
    scored(monkeypatch, scores)
    runs.fit_and_kill(config, tmp_path, killed_at)
    assert evaluations(tmp_path) == list(range(1, killed_at + 1))
    scored(monkeypatch, scores[killed_at:])
    fit(config, tmp_path)
    assert evaluations(tmp_path) == [1, 2, 3, 4, 5]
    assert fit(config, tmp_path) == {}


def test_a_run_goes_on_with_the_score_that_ranked_it(tmp_path, data_dir):
    config = by_steps(data_dir, steps=3)
    fit(config, tmp_path)
    config.train.best, config.train.steps = "depth/abs_rel", 5
    with pytest.raises(ValueError, match=r"ranked its checkpoints with train.best=''"):
        fit(config, tmp_path, allow_config_change=True)
    config.train.best = "depth/absrel"
    with pytest.raises(ValueError, match=r"train.best is 'depth/absrel'; .*Did you mean depth/abs_rel"):
        fit(config, tmp_path / "new")
    assert not (tmp_path / "new").exists()
