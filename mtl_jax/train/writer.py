"""The log of a run: one JSON line for each log step, and TensorBoard event files, written by process 0 alone."""

import contextlib
import io
import itertools
import json
import logging
import math
import socket
import struct
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c
from tensorboardX.summary import scalar

from mtl_jax.runtime import atomic_files, messages

LOG = "log.jsonl"
EVENTS = "tensorboard"
TRAINING, EVALUATION = "train", "eval"  # kinds of lines
_VERSION = "brain.Event:2"  # of the form of event files, which their first record names
_MOST_STEPS = 2**63

logger = logging.getLogger(__name__)


class Writer:
    """Appends to `log.jsonl` and to an event file of a work directory.

    No buffer, queue or thread lies between a call and the file: each line can be read as soon as it is written, and an
    error is raised by the call that it belongs to.

    Args:
        workdir: The work directory of the run.
        resume_step: Step that the run continues from. Lines of later steps, written before an interruption, are
            dropped, so that every step appears once. If lines cannot be read, a copy of the log is kept beside it.
        evaluates_again: True if the run continues with the evaluation of `resume_step`. The line of an earlier
            evaluation of this step is dropped too; TensorBoard shows both.
        active: True on one process. On the others the writer does nothing.

    Raises:
        OSError: A file cannot be read or written; the message names it.
    """

    def __init__(self, workdir: str | Path, *, resume_step: int, evaluates_again: bool = False, active: bool = True):
        self._active = active
        if not active:
            return
        self._path, self._folder = Path(workdir) / LOG, Path(workdir) / EVENTS
        with contextlib.ExitStack() as exits:
            with messages.writing("the log", self._path):
                _truncate(self._path, resume_step, evaluates_again)
                self._log = exits.enter_context(io.FileIO(self._path, "a"))
            # TensorBoard reads all files of the folder in the order of their names.
            name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{uuid.uuid4().hex[:8]}"
            with messages.writing("the events for TensorBoard", self._folder):
                self._folder.mkdir(exist_ok=True)
                self._events = exits.enter_context(io.FileIO(self._folder / name, "x"))
            self._add(Event(wall_time=time.time(), file_version=_VERSION))
            # TensorBoard hides what earlier files say of this step and of later ones.
            start = SessionLog(status=SessionLog.START)
            self._add(Event(wall_time=time.time(), step=resume_step + 1, session_log=start))
            exits.pop_all()

    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Writes one line `{"step": step, "kind": kind, name: value, ...}`.

        Args:
            step: Number of the step.
            kind: TRAINING or EVALUATION.
            values: {name: value}.

        Raises:
            ValueError: A value is not finite.
            OSError: A file cannot be written, for example because the disk is full; the message names it.
        """
        if not self._active:
            return
        if bad := {name: value for name, value in values.items() if not math.isfinite(value)}:
            raise ValueError(f"step {step}: the log takes finite numbers alone, and the values hold {bad}")
        line = json.dumps({"step": step, "kind": kind, **values}) + "\n"
        with messages.writing("the log", self._path):
            atomic_files.append(self._log, line.encode())
        event = Event(wall_time=time.time(), step=step)
        for name, value in values.items():
            event.summary.MergeFrom(scalar(f"{kind}/{name}", value))
        self._add(event)

    def close(self) -> None:
        """Closes both files.

        Raises:
            OSError: What was written has not reached a file; the message names it.
        """
        if not self._active:
            return
        with contextlib.ExitStack() as exits:  # closes the second file even if the first one fails to
            exits.callback(_close, self._log, "the log")
            exits.callback(_close, self._events, "the events for TensorBoard")

    def _add(self, event: Event) -> None:
        """Appends a record in the form of TFRecord: length, its checksum, content, its checksum."""
        content = event.SerializeToString()
        length = struct.pack("<Q", len(content))
        record = b"".join((length, _checksum(length), content, _checksum(content)))
        with messages.writing("the events for TensorBoard", self._folder):
            atomic_files.append(self._events, record)


def _checksum(data: bytes) -> bytes:
    return struct.pack("<I", masked_crc32c(data))


def _close(file: io.FileIO, what: str) -> None:
    with messages.writing(what, str(file.name)):
        try:
            file.close()
        except OSError as error:  # some file systems tell only now that a write has failed
            raise OSError(error.errno, error.strerror, str(file.name)) from error


@dataclass(frozen=True)
class LogLines:
    """The lines of a log.

    Attributes:
        whole: (line without its end, its content) of the lines that can be read.
        damaged: Numbers of the lines that cannot be read, counted from 1.
        torn: True if the last line has no end and cannot be read. It is being written, or a crash cut it short. It
            counts neither as whole nor as damaged.
    """

    whole: Sequence[tuple[bytes, dict[str, Any]]]
    damaged: Sequence[int]
    torn: bool


def split(log: bytes) -> LogLines:
    """Returns the lines of a log.

    A line can be read if it is a JSON object with a whole number "step", a text "kind" and finite numbers besides.
    """
    *lines, rest = log.split(b"\n")
    whole, damaged = [], []
    for number, line in enumerate(lines, start=1):
        if content := _parse(line):
            whole.append((line, content))
        else:
            damaged.append(number)
    if content := _parse(rest):  # only its end is lacking
        whole.append((rest, content))
    return LogLines(whole, damaged, bool(rest) and content is None)


def read(path: Path) -> list[dict[str, Any]]:
    """Returns the content of the lines of a log, none where there is no log. A warning names lines that are damaged."""
    lines = split(path.read_bytes() if path.exists() else b"")
    if lines.damaged:
        logger.warning("%s: %s cannot be read and are left out", path, _named(lines.damaged))
    return [content for _, content in lines.whole]


def _parse(line: bytes) -> dict[str, Any] | None:
    """Returns the content of a line, or None if it cannot be read."""
    try:
        content = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or not isinstance(content.get("kind"), str):
        return None
    step, values = content.get("step"), [value for name, value in content.items() if name != "kind"]
    if not isinstance(step, int) or not 0 <= step < _MOST_STEPS or not all(map(_is_finite, values)):
        return None
    return content


def _is_finite(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number beyond the range of float
        return False


def _truncate(path: Path, step: int, evaluates_again: bool) -> None:
    """Drops the lines after `step` and a torn last line. Where asked, it drops the evaluation of `step` too.

    Keeps a copy of a log with damaged lines.
    """
    if not path.exists():
        return
    log = path.read_bytes()
    lines = split(log)
    if lines.damaged:
        copies = (path.with_name(f"{path.stem}.damaged_{number}{path.suffix}") for number in itertools.count(1))
        copy = atomic_files.write(next(copy for copy in copies if not copy.exists()), log)
        logger.warning(
            "%s: %s cannot be read and are left out; %s keeps the log as it was", path, _named(lines.damaged), copy
        )
    if lines.torn:
        logger.info("%s: the last line was cut short and is dropped", path)
    last = {EVALUATION: step - 1} if evaluates_again else {}
    kept = b"".join(line + b"\n" for line, content in lines.whole if content["step"] <= last.get(content["kind"], step))
    if kept != log:
        atomic_files.write(path, kept)


def _named(numbers: Sequence[int]) -> str:
    return f"{len(numbers)} damaged line(s) ({messages.listing([str(number) for number in numbers])})"
