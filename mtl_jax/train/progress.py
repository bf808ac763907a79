"""The progress of training while it runs: a bar on a terminal, elsewhere a line of the log now and then."""

import contextlib
import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tqdm import tqdm

from mtl_jax.train.pace import Pace, duration

WIDTH = 100  # columns that the bar fits into, however wide the terminal is
_REDRAW_SECONDS = 0.5
_LINE_SECONDS = 30.0  # between two lines of the log where there is no terminal
_SHORT = 3  # letters of a task's name where the columns are few
_BAR = 6  # columns that the bar needs at least, with its borders

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """The extent of a run.

    Attributes:
        total_steps: Number of steps of the whole run.
        steps_per_epoch: Number of steps of an epoch.
        batch_size: Number of images of a step.
        tasks: Tasks that are learned, in the order in which their losses are shown.
    """

    total_steps: int
    steps_per_epoch: int
    batch_size: int
    tasks: Sequence[str]

    def epoch(self, step: int) -> str:
        """Returns the epoch that a step belongs to, for example "epoch 3/6"."""
        return f"epoch {max(1, -(-step // self.steps_per_epoch))}/{-(-self.total_steps // self.steps_per_epoch)}"


class Progress:
    """Shows how far training is.

    On a terminal it is a bar of at most `WIDTH` columns. Where stderr is no terminal, a line of the log says the same,
    at most one for each log interval and one in half a minute.

    Args:
        plan: Extent of the run.
        step: Step that the run continues from.
        shown: False to show nothing, as in all processes but the first one.
        clock: Function that returns a time in seconds.
    """

    def __init__(self, plan: Plan, step: int, *, shown: bool = True, clock: Callable[[], float] = time.perf_counter):
        self._plan, self._first, self._clock = plan, step, clock
        self._pace = Pace(clock)
        self._step = self._done = step
        self._losses: Mapping[str, float] = {}
        self._terminal = shown and sys.stderr.isatty()
        self._lines = shown and not self._terminal
        self._bar: tqdm | None = None
        self._next = -float("inf")  # time of the next redrawing, or of the next line

    def finished(self, step: int, losses: Callable[[], Mapping[str, float]]) -> None:
        """Notes that a step is finished, and redraws the bar where that is due.

        Args:
            step: Number of the step.
            losses: Function that fetches the losses of the step, called where none have been shown so far.
        """
        if step <= self._first:
            return
        self._pace.finished(step)
        self._done = step
        if self._terminal and self._clock() >= self._next:
            self._losses = self._losses or losses()
            self._draw(status(self._plan, step, self._losses, self._pace.seconds_per_step, self._columns()))

    def logged(self, step: int, losses: Mapping[str, float]) -> None:
        """Notes the mean losses of a log interval, all of whose steps are finished."""
        self._pace.finished(step)
        self._done, self._losses = step, losses
        if self._lines and (self._clock() >= self._next or step == self._plan.total_steps):
            self._next = self._clock() + _LINE_SECONDS
            logger.info("%s", line(self._plan, step, losses, self._pace.seconds_per_step))

    @contextlib.contextmanager
    def pause(self, what: str) -> Iterator[None]:
        """Leaves the time that the `with` block takes out of the speed; the bar says what is done meanwhile."""
        with self._pace.pause():
            if self._terminal:
                self._draw(f"{self._plan.epoch(self._done)}  {what} ...")
            yield
        if self._terminal:
            self._next = -float("inf")

    def close(self) -> None:
        """Ends the bar, which stays on the terminal."""
        if self._bar is not None:
            self._draw(status(self._plan, self._done, self._losses, self._pace.seconds_per_step, self._columns()))
            self._bar.close()
            self._bar = None

    def _columns(self) -> int:
        return min(WIDTH, shutil.get_terminal_size().columns - 1)  # some terminals break a line that fills them

    def _draw(self, text: str) -> None:
        self._next = self._clock() + _REDRAW_SECONDS
        columns, total = self._columns(), self._plan.total_steps
        if self._bar is None:
            form = "{n_fmt}/{total_fmt} |{bar}| {desc}"
            self._bar = tqdm(desc=text, total=total, initial=self._done, ncols=columns, bar_format=form)
        else:
            self._bar.ncols, self._bar.n = columns, self._done
            self._bar.set_description_str(text)


def status(
    plan: Plan, step: int, losses: Mapping[str, float], seconds_per_step: float | None, columns: int = WIDTH
) -> str:
    """Returns the text beside the bar: epoch, losses, speed and the time that is left.

    Where the columns are few, the names of the tasks are cut to three letters, then the number of epochs is left out,
    then the total stands for all losses, and at last there are no losses.

    Args:
        plan: Extent of the run.
        step: Newest finished step.
        losses: {loss: value} of a step or its mean over steps, see `task_losses`.
        seconds_per_step: Seconds that a step takes; None while that is unknown.
        columns: Columns of the terminal that the numbers of steps, the bar and the text share.
    """
    room = max(0, columns - len(f"{step}/{plan.total_steps} ") - _BAR - 1)
    whole = task_losses(losses, plan.tasks)
    short = {name[:_SHORT]: value for name, value in whole.items()}
    total = {"loss": losses["loss/total"]} if "loss/total" in losses else {}
    epoch, speed = plan.epoch(step), _speed(plan, step, seconds_per_step)
    number = epoch.partition("/")[0]
    shorter = [(epoch, short), (number, short)] if len(short) == len(whole) else []
    choices = [(epoch, whole), *shorter, (epoch, total), (epoch, {})]
    texts = [_joined(which, shown, speed) for which, shown in choices]
    return next((text for text in texts if len(text) <= room), texts[-1][:room])


def _joined(epoch: str, losses: Mapping[str, float], speed: str) -> str:
    listed = " ".join(f"{name} {value:.3g}" for name, value in losses.items())
    return "  ".join(part for part in (epoch, listed, speed) if part)


def line(plan: Plan, step: int, losses: Mapping[str, float], seconds_per_step: float | None) -> str:
    """Returns the line of the log that stands for the bar, with the arguments of `status`."""
    listed = ", ".join(f"{name} {value:.4g}" for name, value in task_losses(losses, plan.tasks).items())
    parts = (f"step {step}/{plan.total_steps}", plan.epoch(step), f"loss {losses['loss/total']:.4g} ({listed})")
    return ", ".join(filter(None, (*parts, _speed(plan, step, seconds_per_step))))


def _speed(plan: Plan, step: int, seconds_per_step: float | None) -> str:
    """Returns speed and time that is left; empty while they are unknown."""
    if not seconds_per_step:
        return ""
    rate = plan.batch_size / seconds_per_step
    left = duration((plan.total_steps - step) * seconds_per_step)
    return f"{rate:.{0 if rate >= 10 else 1}f} images/s, {left} left"


def task_losses(losses: Mapping[str, float], tasks: Sequence[str]) -> dict[str, float]:
    """Returns {task: its loss} without weights.

    The loss of a task is that of its final prediction, and for an auxiliary task the mean over its intermediate ones.

    Args:
        losses: {"loss/<task>", "loss/<name>_<task>" and others: value}, as the training step returns them.
        tasks: Tasks to look for.
    """
    means = {}
    for task in tasks:
        values = [losses[f"loss/{task}"]] if f"loss/{task}" in losses else _intermediate(losses, task, tasks)
        if values:
            means[task] = sum(values) / len(values)
    return means


def _intermediate(losses: Mapping[str, float], task: str, tasks: Sequence[str]) -> list[float]:
    """Returns the losses of a task's intermediate predictions; "scale_0_b_a" is none of a task "a" if "b_a" is one."""
    longer = tuple(f"_{other}" for other in tasks if other.endswith(f"_{task}"))
    return [
        value
        for name, value in losses.items()
        if name.startswith("loss/") and name.endswith(f"_{task}") and not name.endswith(longer)
    ]
