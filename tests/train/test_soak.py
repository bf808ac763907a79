"""A run that is killed again and again ends where the one that was left alone does."""

import random
import signal
import time

import jax
import numpy as np
import pytest

from mtl_jax.train.stop import EXIT_STATUS
from tests.train import runs

KILLS = 20
EPOCHS = 60  # of 12 steps each, after which the state is saved
OPTIONS = (f"--config.train.epochs={EPOCHS}", "--config.train.batch_size=1")


def saving(workdir):
    """Whether a checkpoint is being written."""
    return any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp"))


def kill(run, workdir, options, rng):
    """Goes on with a run and ends it: (signal, steps logged, whether a checkpoint was being written)."""
    number = rng.choice([signal.SIGKILL, signal.SIGTERM])
    before = runs.logged_steps(workdir)
    process = run.start(workdir, *options)
    runs.wait_for(lambda: runs.logged_steps(workdir) > before or process.poll() is not None, "a step")
    time.sleep(rng.uniform(0, 0.6))  # a step takes some 0.03 s
    if rng.random() < 0.5:
        runs.wait_for(lambda: saving(workdir) or process.poll() is not None, "a save")
    hit = saving(workdir)
    process.send_signal(number)
    ((status, errors),) = run.finish(process)
    assert status == (-signal.SIGKILL if number == signal.SIGKILL else EXIT_STATUS), errors
    return number.name, runs.logged_steps(workdir), hit


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 1])
def test_kills_change_nothing(data_dir, tmp_path, num_workers, capsys):
    run = runs.Run(data_dir, tmp_path / "cache")
    options = (*OPTIONS, f"--config.data.num_workers={num_workers}")
    run(tmp_path / "alone", *options)
    rng = random.Random(num_workers)
    report = [kill(run, tmp_path / "killed", options, rng) for _ in range(KILLS)]
    run(tmp_path / "killed", *options)
    hits = sum(hit for _, _, hit in report)
    with capsys.disabled():
        print(f"\n{KILLS} kills, {hits} of them during a save: {report}")
    assert hits > 0
    assert runs.log(tmp_path / "killed") == runs.log(tmp_path / "alone")
    (step, expected, progress), (other, found, others) = map(runs.arrays, (tmp_path / "alone", tmp_path / "killed"))
    assert step == other == 12 * EPOCHS
    assert progress == others
    jax.tree.map(np.testing.assert_array_equal, expected, found)
