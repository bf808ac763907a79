"""Speed, time left and what the bar shows, with a clock that the tests move."""

import io
import logging

import pytest

from mtl_jax.train import progress as module
from mtl_jax.train.pace import Pace, duration
from mtl_jax.train.progress import Plan, Progress, line, status, task_losses

PASCAL = ("semseg", "human_parts", "sal", "normals", "edge")
LOSSES = {f"loss/{task}": 1.23456 for task in PASCAL} | {"loss/total": 12.3456}


class Clock:
    """A time in seconds that passes when a test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_compilation_and_evaluation_do_not_count(clock):
    pace = Pace(clock)
    clock.now += 65  # compiles
    pace.finished(1)
    assert pace.seconds_per_step is None
    clock.now += 2
    pace.finished(2)
    assert pace.seconds_per_step == 2
    with pace.pause():
        clock.now += 500
    clock.now += 2
    pace.finished(3)
    assert pace.seconds_per_step == 2


def test_the_speed_is_that_of_the_last_minute(clock):
    pace = Pace(clock)
    for step in range(100):
        clock.now += 10
        pace.finished(step)
    for step in range(100, 300):
        clock.now += 1
        pace.finished(step)
    assert pace.seconds_per_step == 1


def test_steps_that_are_noted_together(clock):
    """The log waits for all steps since its last line."""
    pace = Pace(clock)
    pace.finished(1)
    clock.now += 30
    pace.finished(11)
    pace.finished(9)  # earlier ones are known already
    assert pace.seconds_per_step == 3


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (75, "1:15"), (3675, "1:01:15"), (90000, "25:00:00")])
def test_durations(seconds, text):
    assert duration(seconds) == text


PLAN = Plan(total_steps=14500, steps_per_epoch=145, batch_size=8, tasks=PASCAL)


def test_the_bar_has_the_losses_of_all_tasks_in_100_columns():
    text = status(PLAN, 12345, LOSSES, 0.25)
    assert text == "epoch 86  sem 1.23 hum 1.23 sal 1.23 nor 1.23 edg 1.23  32 images/s, 8:59 left"
    assert len(f"12345/14500 |{'':4}| {text}") <= 100


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (130, "epoch 86/100  semseg 1.23 human_parts 1.23 sal 1.23 normals 1.23 edge 1.23  32 images/s, 8:59 left"),
        (80, "epoch 86/100  loss 12.3  32 images/s, 8:59 left"),
        (60, "epoch 86/100  32 images/s, 8:59 left"),
        (40, "epoch 86/100  32 imag"),
    ],
)
def test_what_is_left_out_where_columns_are_few(columns, expected):
    text = status(PLAN, 12345, LOSSES, 0.25, columns)
    assert text == expected
    assert len(f"12345/14500 |{'':4}| {text}") <= columns


def test_names_of_tasks_that_begin_alike_are_not_cut():
    plan = Plan(100, 10, 8, ("semseg", "semantics"))
    losses = {"loss/semseg": 1.0, "loss/semantics": 2.0, "loss/total": 3.0}
    assert "loss 3 " in status(plan, 20, losses, 1.0, 70)
    assert "semseg 1 semantics 2" in status(plan, 20, losses, 1.0, 100)


def test_auxiliary_tasks_show_the_mean_of_their_intermediate_losses():
    losses = {
        "loss/semseg": 5.0,
        "loss/scale_0_semseg": 9.0,
        "loss/scale_0_parts": 1.0,
        "loss/scale_1_parts": 3.0,
        "loss/scale_0_human_parts": 7.0,
        "cosine/semseg_parts": 100.0,
        "weight/parts": 100.0,
    }
    assert task_losses(losses, ("semseg", "parts", "human_parts")) == {"semseg": 5.0, "parts": 2.0, "human_parts": 7.0}


def test_without_a_terminal_a_line_comes_twice_a_minute(clock, caplog, monkeypatch):
    monkeypatch.setattr(module.sys, "stderr", io.StringIO())
    progress = Progress(PLAN, 0, clock=clock)
    with caplog.at_level(logging.INFO):
        for step in range(1, 101):
            clock.now += 1
            progress.finished(step, lambda: LOSSES)
            if step % 10 == 0:
                progress.logged(step, LOSSES)
        progress.logged(14500, LOSSES)
    progress.close()
    assert [message.partition(",")[0] for message in caplog.messages] == [
        "step 10/14500",
        "step 40/14500",
        "step 70/14500",
        "step 100/14500",
        "step 14500/14500",
    ]
    assert caplog.messages[1] == (
        "step 40/14500, epoch 1/100, loss 12.35 (semseg 1.235, human_parts 1.235, sal 1.235, normals 1.235, edge "
        "1.235), 8.0 images/s, 4:01:00 left"
    )
    assert module.sys.stderr.getvalue() == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_bar_on_a_terminal(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(module.sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "101")
    fetched = []

    def losses():
        fetched.append(True)
        return LOSSES

    progress = Progress(Plan(300, 100, 8, PASCAL), 0, clock=clock)
    progress.finished(-1, losses)  # the device has finished none yet
    assert terminal.getvalue() == ""
    for step in range(1, 6):
        progress.finished(step, losses)
        clock.now += 1
    assert fetched == [True]  # the losses of the first step stand there until the first line of the log
    progress.logged(6, LOSSES | {"loss/semseg": 4.0})
    with progress.pause("evaluating"):
        clock.now += 1000
    progress.finished(7, losses)
    progress.close()
    drawn = [text.rstrip() for text in terminal.getvalue().split("\r") if text.strip()]
    assert all(len(text) <= 100 for text in drawn)
    assert drawn[0].endswith("| epoch 1/3  semseg 1.23 human_parts 1.23 sal 1.23 normals 1.23 edge 1.23")
    assert drawn[4].endswith("| epoch 1/3  sem 1.23 hum 1.23 sal 1.23 nor 1.23 edg 1.23  8.0 images/s, 4:55 left")
    assert "evaluating ..." in drawn[5]
    assert "sem 4 hum 1.23" in drawn[6]
    assert terminal.getvalue().endswith("\n")


def test_other_processes_show_nothing(clock, caplog, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(module.sys, "stderr", terminal)
    with caplog.at_level(logging.INFO):
        progress = Progress(PLAN, 0, shown=False, clock=clock)
        progress.finished(1, lambda: LOSSES)
        progress.logged(2, LOSSES)
        progress.close()
    assert not caplog.records
    assert not terminal.getvalue()


def test_the_line_of_the_first_interval_has_no_speed():
    assert line(Plan(10, 5, 8, ("depth",)), 1, {"loss/depth": 0.5, "loss/total": 0.5}, None) == (
        "step 1/10, epoch 1/2, loss 0.5 (depth 0.5)"
    )
