"""Traces of training steps: which steps, where, and that they are whole however the run ends."""

import gzip
import itertools
import json
import logging
import os
import signal

import jax
import jax.numpy as jnp
import pytest

from mtl_jax import cli
from mtl_jax.commands import train as command
from mtl_jax.train import configured_step, loop
from mtl_jax.train.profiling import Profiler, Steps
from mtl_jax.train.stop import StoppedError
from tests import tiny


def recorded(workdir):
    """The numbers of the steps in the trace for Perfetto; the one for TensorBoard lies beside it."""
    (trace,) = workdir.glob("profile/plugins/profile/*/perfetto_trace.json.gz")
    assert list(trace.parent.glob("*.xplane.pb"))
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    return [int(event["args"]["step_num"]) for event in events if event.get("name") == "train"]


def make_steps(profiler, numbers, evaluated=()):
    for number in numbers:
        with profiler.step(number, jnp.ones(3)):
            result = jnp.ones(3) * number
        profiler.finished(number, result, evaluates=number in evaluated)


def test_steps_are_counted_from_the_start_of_the_process(tmp_path, caplog):
    profiler = Profiler(Steps(2, 3), tmp_path, step=10, total=20)
    with caplog.at_level(logging.INFO):
        make_steps(profiler, range(11, 17))
    profiler.close()
    assert recorded(tmp_path) == [12, 13]
    said = caplog.messages[-1]
    assert f"the trace from step 12 to step 13 is in {tmp_path / 'profile'}; you can open it with" in said
    assert f"tensorboard --logdir {tmp_path / 'profile'} " in said
    assert "perfetto_trace.json.gz" in said


def test_steps_beyond_the_end_of_the_run_do_not_count(tmp_path, caplog):
    """The trace ends with the last step, before anything else that the run does."""
    profiler = Profiler(Steps(2, 30), tmp_path, step=0, total=4)
    with caplog.at_level(logging.INFO):
        make_steps(profiler, range(1, 5), evaluated=[4])
    assert recorded(tmp_path) == [2, 3, 4]
    assert "the trace from step 2 to step 4" in caplog.text
    assert "evaluation" not in caplog.text


def test_a_run_that_ends_earlier_ends_the_trace(tmp_path, caplog):
    profiler = Profiler(Steps(2, 30), tmp_path, step=0, total=40)
    with caplog.at_level(logging.INFO):
        make_steps(profiler, range(1, 5))
        profiler.close()
    assert recorded(tmp_path) == [2, 3, 4]
    assert "the trace from step 2 to step 4" in caplog.text


def test_a_trace_ends_before_an_evaluation(tmp_path, data_dir, caplog, monkeypatch):
    """The steps after the evaluation are not recorded either."""
    events, stop = [], jax.profiler.stop_trace

    def evaluate(*args):
        events.append("evaluates")
        return {"depth": {"rmse": 1.0}}

    def end():
        events.append("ends")
        stop()

    def step(arrays, *others):  # nothing is compiled
        return arrays, {"loss/total": jnp.float32(1)}

    monkeypatch.setattr(configured_step, "make_train_step", lambda *args, **options: step)
    monkeypatch.setattr(loop.scoring, "streaming", evaluate)
    monkeypatch.setattr(jax.profiler, "stop_trace", end)
    config = tiny.config(data_dir, epochs=0, steps=4, eval_every=3)
    with caplog.at_level(logging.INFO):
        loop.fit(config, tmp_path, profile=Steps(2, 4))
    assert events == ["ends", "evaluates", "evaluates"]
    assert recorded(tmp_path) == [2, 3]
    assert "the trace ends at step 3, because an evaluation follows; the steps up to 4 are not recorded" in caplog.text
    assert "the trace from step 2 to step 3" in caplog.text


@pytest.mark.usefixtures("interruptible")
def test_a_run_that_is_interrupted_leaves_a_whole_trace(tmp_path, data_dir, monkeypatch):
    make = configured_step.make_train_step

    def interrupted(*args, **options):
        step, calls = make(*args, **options), itertools.count(1)

        def train_step(arrays, batch, seed):
            if next(calls) == 3:
                os.kill(os.getpid(), signal.SIGINT)
            return step(arrays, batch, seed)

        return train_step

    monkeypatch.setattr(configured_step, "make_train_step", interrupted)
    with pytest.raises(StoppedError, match="stopped at step 3 of 6"):
        loop.fit(tiny.config(data_dir), tmp_path, profile=Steps(2, 5))
    assert recorded(tmp_path) == [2, 3]


def test_a_trace_that_cannot_be_begun_does_not_end_the_run(tmp_path, caplog):
    (tmp_path / "profile").write_text("in the way")
    make_steps(Profiler(Steps(1, 1), tmp_path, step=0, total=2), (1, 2))
    assert f"the steps cannot be recorded in {tmp_path / 'profile'}: " in caplog.text
    # The profiler is free for the next trace.
    profiler = Profiler(Steps(1, 1), tmp_path / "other", step=0, total=2)
    with profiler.step(1, jnp.ones(3)):
        make_steps(Profiler(Steps(1, 1), tmp_path / "second", step=0, total=2), (1, 2))
    profiler.finished(1, jnp.ones(3))
    assert f"the steps cannot be recorded in {tmp_path / 'second' / 'profile'}: Profile has already" in caplog.text
    assert recorded(tmp_path / "other") == [1]


def test_a_trace_that_cannot_be_written_does_not_end_the_run(tmp_path, caplog, monkeypatch):
    stop = jax.profiler.stop_trace

    def fail():
        stop()
        raise OSError("disk full")

    monkeypatch.setattr(jax.profiler, "stop_trace", fail)
    make_steps(Profiler(Steps(1, 1), tmp_path, step=0, total=2), (1, 2))
    assert f"the trace of the steps could not be written to {tmp_path / 'profile'}: disk full" in caplog.text


def test_a_trace_that_cannot_be_found_does_not_end_the_run(tmp_path, caplog, monkeypatch):
    """A trace of an earlier process does not pass for the one that is missing."""
    older = tmp_path / "profile/plugins/profile/2020_01_01_00_00_00/perfetto_trace.json.gz"
    older.parent.mkdir(parents=True)
    older.touch()
    monkeypatch.setattr(jax.profiler, "start_trace", lambda *args, **options: None)
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: None)
    with caplog.at_level(logging.INFO):
        make_steps(Profiler(Steps(1, 1), tmp_path, step=0, total=2), (1, 2))
    said = f"the trace of the steps was written, but there is no new one in {tmp_path / 'profile'}"
    assert caplog.messages == [said]


def test_steps_that_never_come_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="the steps to profile begin with 10, and 9 are left to train"):
        Profiler(Steps(10, 20), tmp_path, step=11, total=20)


@pytest.mark.parametrize("given", ["10", "20:10", "0:5", "a:b", "1:2:3"])
def test_other_forms_are_refused(given, capsys):
    parser = cli.Parser("mtl train", "")
    command.add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["--workdir", "x", "--profile", given])
    assert f"'{given}' names no steps; give the first and the last one, counted from 1, as in 10:20" in " ".join(
        capsys.readouterr().err.split()
    )
    assert parser.parse_args(["--workdir", "x", "--profile", "10:20"]).profile == Steps(10, 20)
