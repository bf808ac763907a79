"""A trace of some training steps, for TensorBoard and Perfetto."""

import contextlib
import logging
import shlex
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from mtl_jax.runtime import processes

logger = logging.getLogger(__name__)

FOLDER = "profile"  # in the work directory
_ERRORS = (OSError, RuntimeError, ValueError)  # that jax.profiler raises


@dataclass(frozen=True)
class Steps:
    """The steps that a trace shows, counted from 1 at the start of the process. Both ends are included.

    Attributes:
        first: The first step.
        last: The last step.

    Raises:
        ValueError: The first step is below 1, or the last one comes before the first one.
    """

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 1 <= self.first <= self.last:
            raise ValueError(
                f"the steps to profile are {self.first}:{self.last}; give the first and the last one, counted from 1, "
                "as in 10:20"
            )


class Profiler:
    """Records some of the steps of a process with `jax.profiler`, in the first process of a run.

    The trace ends before an evaluation, which may take much longer than the steps and is not what somebody asks for who
    names steps. A trace that cannot be begun, written or found is a warning, because the training is worth more.

    Args:
        steps: The steps; None records nothing. Steps after the last one of the run do not count.
        workdir: The work directory of the run, whose folder `FOLDER` receives the trace.
        step: Number of the newest step when the process starts.
        total: Number of the last step of the run.

    Raises:
        ValueError: Fewer steps are left than the number of the first one to record.
    """

    def __init__(self, steps: Steps | None, workdir: Path, *, step: int, total: int):
        self._folder, self._recording, self._newest = workdir / FOLDER, False, step
        self._first, self._last = 0, 0
        self._older: set[Path] = set()  # traces of earlier processes
        if steps is None:
            return
        if steps.first > total - step:
            raise ValueError(
                f"the steps to profile begin with {steps.first}, and {total - step} are left to train; begin earlier, "
                "or train longer"
            )
        if processes.first():
            self._first, self._last = step + steps.first, min(step + steps.last, total)

    def step(self, number: int, arrays: Any) -> AbstractContextManager[Any]:
        """Returns the context of a step, which starts the recording if this is the first step to record.

        Args:
            number: Number of the step in the run.
            arrays: Result of the step before. The recording starts when the devices have computed it.
        """
        if number == self._first:
            jax.block_until_ready(arrays)
            self._start()
        return (
            jax.profiler.StepTraceAnnotation("train", step_num=number) if self._recording else contextlib.nullcontext()
        )

    def finished(self, number: int, arrays: Any, *, evaluates: bool = False) -> None:
        """Ends the recording if this is the last step to record, or an evaluation follows.

        Args:
            number: Number of the step in the run.
            arrays: Result of the step, which the devices compute to the end first.
            evaluates: True if the step is followed by an evaluation.
        """
        self._newest = number
        if not self._recording or not (evaluates or number == self._last):
            return
        jax.block_until_ready(arrays)
        if number < self._last:
            logger.info(
                "the trace ends at step %d, because an evaluation follows; the steps up to %d are not recorded",
                number,
                self._last,
            )
        self.close()

    def close(self) -> None:
        """Ends a recording that is under way, writes the trace, and says in the log how to open it."""
        if not self._recording:
            return
        self._recording = False
        try:
            jax.profiler.stop_trace()
            new = self._traces() - self._older
        except _ERRORS as error:
            logger.warning("the trace of the steps could not be written to %s: %s", self._folder, error)
            return
        if not new:
            logger.warning("the trace of the steps was written, but there is no new one in %s", self._folder)
            return
        logger.info(
            "the trace from step %d to step %d is in %s; you can open it with\n"
            "TensorBoard  tensorboard --logdir %s   (pip install tensorboard xprof)\n"
            "Perfetto     https://ui.perfetto.dev: open the file %s",
            self._first,
            max(self._first, self._newest),
            self._folder,
            shlex.quote(str(self._folder)),
            max(new),  # the folders are named by their time
        )

    def _start(self) -> None:
        """Starts the recording."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._older = self._traces()
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
        except _ERRORS as error:
            logger.warning("the steps cannot be recorded in %s: %s", self._folder, error)
        else:
            self._recording = True

    def _traces(self) -> set[Path]:
        """Returns the paths of the traces for Perfetto in the folder."""
        return set(self._folder.glob("plugins/profile/*/perfetto_trace.json.gz"))
