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

    Args:
        steps: The steps; None records nothing.
        workdir: The work directory of the run, whose folder `FOLDER` receives the trace.
        step: Number of the newest step when the process starts.
        total: Number of the last step of the run.

    Raises:
        ValueError: Fewer steps are left than the number of the first one to record.
    """

    def __init__(self, steps: Steps | None, workdir: Path, *, step: int, total: int):
        self._folder, self._recording, self._newest = workdir / FOLDER, False, step
        self._first, self._last = 0, 0
        if steps is None:
            return
        if steps.first > total - step:
            raise ValueError(
                f"the steps to profile begin with {steps.first}, and {total - step} are left to train; begin earlier, "
                "or train longer"
            )
        if processes.first():
            self._first, self._last = step + steps.first, step + steps.last

    def step(self, number: int, arrays: Any) -> AbstractContextManager[Any]:
        """Returns the context of a step, which starts the recording if this is the first step to record.

        Args:
            number: Number of the step in the run.
            arrays: Result of the step before. The recording starts when the devices have computed it.
        """
        if number == self._first:
            jax.block_until_ready(arrays)
            self._recording = True
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
        return (
            jax.profiler.StepTraceAnnotation("train", step_num=number) if self._recording else contextlib.nullcontext()
        )

    def finished(self, number: int, arrays: Any) -> None:
        """Ends the recording if this is the last step to record.

        Args:
            number: Number of the step in the run.
            arrays: Result of the step, which the devices compute to the end first.
        """
        self._newest = number
        if self._recording and number == self._last:
            jax.block_until_ready(arrays)
            self.close()

    def close(self) -> None:
        """Ends a recording that is under way, writes the trace, and says in the log how to open it.

        A trace that cannot be written is a warning, because the training is worth more.
        """
        if not self._recording:
            return
        self._recording = False
        try:
            jax.profiler.stop_trace()
        except (OSError, RuntimeError, ValueError) as error:
            logger.warning("the trace of the steps could not be written to %s: %s", self._folder, error)
            return
        (newest,) = sorted(self._folder.glob("plugins/profile/*/perfetto_trace.json.gz"))[-1:]  # named by their time
        logger.info(
            "the trace from step %d to step %d is in %s; you can open it with\n"
            "TensorBoard  tensorboard --logdir %s   (pip install tensorboard xprof)\n"
            "Perfetto     https://ui.perfetto.dev: open the file %s",
            self._first,
            max(self._first, self._newest),
            self._folder,
            shlex.quote(str(self._folder)),
            newest,
        )
