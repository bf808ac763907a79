"""The log of a run in `log.jsonl`, one JSON line for each log step, and logged images as files."""

import io
import itertools
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl_jax.loggers.base import EVALUATION, LoggedImage, Logger, Outcome, RunStart
from mtl_jax.loggers.local_files import close
from mtl_jax.loggers.registry import NoOptions, register
from mtl_jax.runtime import atomic_files, messages

LOG = "log.jsonl"
IMAGES = "images"
_MOST_STEPS = 2**63

logger = logging.getLogger(__name__)


@register("jsonl")
class Jsonl(Logger):
    """One line of JSON for each log step in log.jsonl, and images as JPEG files; always written.

    No buffer, queue or thread lies between a call and the file: each line can be read as soon as it is written. Lines
    of later steps than that of the start are dropped. If lines cannot be read, a copy of the log is kept beside it.

    Raises:
        OSError: A file cannot be read or written; the message names it.
    """

    local = True

    def __init__(self, start: RunStart, options: NoOptions):
        self._path, self._images = start.workdir / LOG, start.workdir / IMAGES
        with messages.writing("the log", self._path):
            _truncate(self._path, start.step, start.evaluates_again)
            self._log = io.FileIO(self._path, "a")

    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Writes one line `{"step": step, "kind": kind, name: value, ...}`."""
        line = json.dumps({"step": step, "kind": kind, **values}) + "\n"
        with messages.writing("the log", self._path):
            atomic_files.append(self._log, line.encode())

    def write_images(self, step: int, images: Sequence[LoggedImage]) -> None:
        """Writes images/NAME/step_STEP.jpg for each picture."""
        for image in images:
            path = self._images / image.name / f"step_{step:08d}.jpg"
            with messages.writing("the logged images", path):
                path.parent.mkdir(parents=True, exist_ok=True)
                atomic_files.write(path, image.jpeg, sync=False)

    def close(self, outcome: Outcome) -> None:
        close(self._log, "the log")


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
