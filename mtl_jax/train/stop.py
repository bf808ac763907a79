"""Requests to stop a run: after SIGTERM or SIGINT the step is finished and the state is saved."""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

import jax
from jax.experimental import multihost_utils

EXIT_STATUS = 75  # sysexits.h: EX_TEMPFAIL, "try again"


class StoppedError(Exception):
    """A run was asked to stop and has saved its state; the same command continues it."""


class StopRequests:
    """A context that notes SIGTERM and SIGINT; a second SIGINT ends the process at once, as usual.

    With several processes a signal to one of them stops all: JAX's preemption service, which owns SIGTERM there, tells
    the others and finds a step that none of them has passed. Outside of the main thread signals keep their handlers.
    """

    def __init__(self) -> None:
        self._shared = jax.process_count() > 1
        self._requested = False
        self._previous: dict[int, Any] = {}

    def reached(self, step: int) -> bool:
        """Returns True if the run stops after this step. All processes ask after every step and get the same answer."""
        return multihost_utils.reached_preemption_sync_point(step) if self._shared else self._requested

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT,) if self._shared else (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._request)
        return self

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
