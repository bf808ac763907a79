"""Requests to stop a run: after SIGTERM or SIGINT the step is finished and the state is saved."""

import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, Self

import jax
from jax.experimental import multihost_utils

_GRACE_SECONDS = 3  # for the main thread, to close its files after a second SIGINT
EXIT_STATUS = 75  # sysexits.h: EX_TEMPFAIL, "try again"


class StoppedError(Exception):
    """A run was asked to stop and has saved its state; the same command continues it."""


class StopRequests:
    """A context that notes SIGTERM and SIGINT, and says so; a second SIGINT ends the process.

    Python handles signals between two operations of the main thread, which may compile for minutes or wait for a batch
    that never comes. A thread of this context therefore answers on the terminal at once, and ends the process after a
    second SIGINT if the main thread does not.

    With several processes a signal to one of them stops all: JAX's preemption service, which owns SIGTERM there, tells
    the others and finds a step that none of them has passed. Outside of the main thread signals keep their handlers. A
    signal that the process was started to ignore stays ignored.
    """

    def __init__(self) -> None:
        self._shared = jax.process_count() > 1
        self._requested = False
        self._previous: dict[int, Any] = {}
        self._ended = threading.Event()
        self._pipe: tuple[int, int] | None = None
        self._wakeup = -1

    def reached(self, step: int) -> bool:
        """Returns True if the run stops after this step. All processes ask after every step and get the same answer."""
        return multihost_utils.reached_preemption_sync_point(step) if self._shared else self._requested

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT,) if self._shared else (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:  # as in a background job of a script
                    self._previous[number] = signal.signal(number, self._request)
            self._pipe = os.pipe()
            os.set_blocking(self._pipe[1], False)
            self._wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
            threading.Thread(target=self._answer, args=(self._pipe[0],), daemon=True).start()
        return self

    def _answer(self, pipe: int) -> None:
        """Answers signals, whose numbers come through the pipe, until the pipe is closed."""
        asked = False
        while number := os.read(pipe, 1):
            if number[0] == signal.SIGINT and asked:
                _tell("ending at once; the newest checkpoint stays as it is")
                if not self._ended.wait(_GRACE_SECONDS):
                    os._exit(128 + signal.SIGINT)
            elif number[0] in (signal.SIGINT, signal.SIGTERM) and not asked:
                asked = True
                _tell("finishing the step and saving it; Ctrl-C ends the run at once")
        os.close(pipe)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self._requested = True
        self._restore(signal.SIGINT)  # launchers that pass SIGTERM on may send it several times
        if self._shared:
            os.kill(os.getpid(), signal.SIGTERM)

    def _restore(self, *numbers: int) -> None:
        for number in numbers:
            if number in self._previous:
                handler = self._previous.pop(number)
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._restore(*list(self._previous))
        self._ended.set()
        if self._pipe is not None:
            signal.set_wakeup_fd(self._wakeup)
            os.close(self._pipe[1])


def _tell(message: str) -> None:
    """Writes a line to the terminal, also while the main thread is in the middle of writing."""
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"\n{message}\n".encode())
