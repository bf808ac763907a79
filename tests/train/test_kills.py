"""Runs that are ended at every stage, again and again, by signals to all their processes."""

import os
import random
import shutil
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from mtl_jax.train.stop import EXIT_STATUS
from tests.train import runs

DATA_SET = "rendered_scenes"
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)


def finished_steps(workdir):
    return {int(path.name): path for path in (workdir / "checkpoints").glob("*") if path.name.isdecimal()}


def without_evaluation(workdir):
    return [step for step, path in finished_steps(workdir).items() if step % 3 == 0 and not (path / "metrics").exists()]


# {stage: (what shows that a run has reached the stage, seconds after it within which the signal comes)}
STAGES = {
    "start": (lambda workdir, said, before: True, 2),
    "build": (lambda workdir, said, before: "drawing" in said, 1),
    "compilation": (lambda workdir, said, before: "compiling the training step" in said, 2),
    "step": (lambda workdir, said, before: runs.logged_steps(workdir) > before, 0.3),
    "save": (lambda workdir, said, before: any(workdir.glob("checkpoints/*.orbax-checkpoint-tmp*")), 0.1),
    "evaluation": (
        lambda workdir, said, before: "compiling the evaluation step" in said and without_evaluation(workdir),
        1,
    ),
}


def end_run(run, workdir, options, stage, number, draw):
    """Starts or continues a run, and ends it in a stage by a signal to its process group.

    Returns:
        (process ID, exit status).
    """
    reached, seconds = STAGES[stage]
    if stage == "build":
        shutil.rmtree(Path(run.data_dir) / DATA_SET)
    said, before = workdir.with_suffix(".log"), runs.logged_steps(workdir)
    with said.open("w") as stderr:
        process = run.start(workdir, *options, stderr=stderr, start_new_session=True)
    runs.wait_for(lambda: process.poll() is not None or reached(workdir, said.read_text(), before), stage)
    time.sleep(draw.uniform(0, seconds))
    os.killpg(process.pid, number)
    status = process.wait(runs.LIMIT)
    runs.wait_for(lambda: not group_exists(process.pid), "the end of the worker processes")
    errors = said.read_text()
    allowed = {-number, 1, 128 + number, EXIT_STATUS} if number != signal.SIGKILL else {-number}
    assert status in allowed, (stage, number, errors)
    # Before training begins, Python shows where it was interrupted.
    assert "error:" not in errors, (stage, number, errors)
    assert "Traceback" not in errors or "KeyboardInterrupt" in errors, (stage, number, errors)
    return process.pid, status


def group_exists(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("seed", [0])
def test_a_run_that_is_ended_at_every_stage_comes_out_the_same(tmp_path, seed):
    draw = random.Random(seed)
    attacks = [(stage, number) for stage in STAGES for number in SIGNALS]
    draw.shuffle(attacks)
    (tmp_path / "data").mkdir()
    run = runs.Run(tmp_path / "data", tmp_path / "cache")
    options = ("--config.data.num_workers=1", "--config.train.eval_final_epochs=0", "--config.train.epochs=24")
    run(tmp_path / "straight", *options, "--config.data.num_workers=0")
    ended = [end_run(run, tmp_path / "ended", options, stage, number, draw) for stage, number in attacks]
    assert EXIT_STATUS in {status for _, status in ended}
    run(tmp_path / "ended", *options)

    (step, straight, _), (other, continued, _) = (runs.arrays(tmp_path / name) for name in ("straight", "ended"))
    assert step == other == 72
    jax.tree.map(np.testing.assert_array_equal, straight, continued)
    assert runs.log(tmp_path / "straight") == runs.log(tmp_path / "ended")
    assert sorted(finished_steps(tmp_path / "straight")) == sorted(finished_steps(tmp_path / "ended"))
    assert not [path for process, _ in ended for path in Path("/dev/shm").glob(f"mtl_jax_*_{process}_*")]
